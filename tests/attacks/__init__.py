"""Attacks on a running server: one file an attack, each with what it may cost; `python -m tests.attacks` runs them."""
