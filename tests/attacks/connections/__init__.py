"""Attacks by many connections, or by what a caller does not read or send."""
