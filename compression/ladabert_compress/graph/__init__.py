"""The ONNX graph of a student, its candidates, int8 and half precision; may import ``training`` and below."""
