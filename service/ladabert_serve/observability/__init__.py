"""Metrics, log lines and traces of what the rooms above do; may import `settings` and below."""
