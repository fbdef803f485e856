"""What models predict, what that is worth, how long it takes and where; may import ``data`` and below."""
