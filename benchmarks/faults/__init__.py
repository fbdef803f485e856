"""Does to a running server what docs/results/faults.md promises that it survives, and measures whether it does."""
