"""Whose turn it is and which texts run together; knows neither HTTP nor ONNX, and imports nothing but `errors`."""
