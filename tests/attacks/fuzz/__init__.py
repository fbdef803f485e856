"""Mutated requests, the same ones at every run."""
