"""Serves LadaBERT students over HTTP: FastAPI in front, ONNX Runtime behind a batcher."""
