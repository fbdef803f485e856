"""Rows: reading, labels, batches, overlaps; may import ``recipe``, ``files`` and ``errors``."""
