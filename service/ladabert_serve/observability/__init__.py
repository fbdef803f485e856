"""Metrics and log lines of what the rooms above do; may import `settings` and below."""
