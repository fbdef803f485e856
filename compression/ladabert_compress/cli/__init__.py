"""The commands and their options, nothing else; may import every room."""
