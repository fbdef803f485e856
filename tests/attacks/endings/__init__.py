"""Attacks around SIGTERM: each starts and stops servers of its own."""
