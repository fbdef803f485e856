"""What is decided by measuring: a split of the budget, a ratio for a latency; may import ``report`` and below."""
