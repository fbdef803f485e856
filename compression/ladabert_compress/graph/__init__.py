"""The ONNX graph: builder, products, attention, encoder, candidates, int8 and half precision.

May import ``training`` and every room below it.
"""
