"""Served models: artefacts, tokenizer, scores, and a request's way through them; may import scheduling and below."""
