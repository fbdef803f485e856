"""Attacks by what a body says."""
