"""Attacks by a request's line and headers."""
