"""A student's matrices, factors, masks, ranks, budget and structure; may import ``measure`` and below."""
