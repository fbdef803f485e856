"""Does to a running server what docs/faults.md promises that it survives, and measures whether it does."""
