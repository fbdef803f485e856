"""Scoring of files without a server: rows in, rows with labels out; may import models and below."""
