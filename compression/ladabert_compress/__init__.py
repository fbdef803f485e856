"""Turns a fine-tuned BERT classifier into a LadaBERT student and exports it to ONNX."""
