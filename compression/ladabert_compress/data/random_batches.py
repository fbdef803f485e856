"""Batches of random tokens, to time a graph and to compare one with another."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from ladabert_compress.data.batches import Batch

Shape = tuple[int, int]  # texts, tokens of each

# Texts and tokens at which two graphs have to compute the same: one text and many, short and long, odd and even.
PARITY_SHAPES: tuple[Shape, ...] = ((1, 3), (1, 17), (2, 64), (7, 33), (32, 16))


def random_batch(vocabulary: int, shape: Shape) -> Batch:
    """A batch without padding, the same for each vocabulary and shape."""
    ids = torch.randint(vocabulary, shape, generator=torch.Generator().manual_seed(0))
    return Batch(ids, torch.ones_like(ids), torch.zeros_like(ids), ids[:, 0])


def parity_batches(vocabulary: int, max_length: int) -> Iterator[Batch]:
    """A batch for each of ``PARITY_SHAPES``, its first text of full length and the others padded."""
    generator = torch.Generator().manual_seed(0)
    for batch_size, tokens in PARITY_SHAPES:
        shape = (batch_size, min(tokens, max_length))
        ids = torch.randint(vocabulary, shape, generator=generator)
        lengths = torch.randint(1, shape[1] + 1, (batch_size, 1), generator=generator)
        lengths[0] = shape[1]
        mask = (torch.arange(shape[1]) < lengths).long()
        yield Batch(ids, mask, torch.zeros_like(ids), ids[:, 0])
