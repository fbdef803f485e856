"""What computes logits: ONNX Runtime and OpenVINO, each imported by one module; may import `settings` and below."""
