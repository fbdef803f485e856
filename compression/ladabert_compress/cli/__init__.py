"""The commands and their options, nothing else. May import every room."""
