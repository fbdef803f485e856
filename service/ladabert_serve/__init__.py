"""Serves compressed BERT classifiers over HTTP with ONNX Runtime."""
