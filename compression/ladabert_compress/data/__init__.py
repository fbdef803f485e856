"""Rows: reading, labels, batches, overlaps. May import ``recipe``, ``files`` and ``errors`` alone."""
