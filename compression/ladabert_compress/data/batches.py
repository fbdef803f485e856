"""Tokenises rows once and deals them out in batches of like length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ladabert_compress.data.texts import Texts

# Batches are cut from pools of this many batches sorted by length: long enough to make padding rare,
# short enough that the composition of batches still changes from epoch to epoch.
POOL_BATCHES = 64


Labels = list[int] | list[list[int]]


@dataclass(frozen=True)
class Batch:
    """One padded batch, each tensor (B, T) int64; ``labels`` is (B,), or (B, labels) in a multi-label task."""

    input_ids: Tensor
    attention_mask: Tensor
    token_type_ids: Tensor
    labels: Tensor

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""
        tensors = (self.input_ids, self.attention_mask, self.token_type_ids, self.labels)
        return Batch(*(tensor.to(device) for tensor in tensors))

    def twice(self) -> Batch:
        """All rows, and then all of them again."""
        tensors = (self.input_ids, self.attention_mask, self.token_type_ids, self.labels)
        return Batch(*(torch.cat([tensor, tensor]) for tensor in tensors))


@dataclass(frozen=True)
class EncodedTexts:
    """Token ids, token types and label of each row, unpadded; a multi-label row has a flag for each label."""

    input_ids: list[list[int]]
    token_type_ids: list[list[int]]
    labels: Labels
    pad_token_id: int

    def __len__(self) -> int:
        return len(self.input_ids)

    def select(self, rows: Sequence[int]) -> EncodedTexts:
        """The named rows alone."""
        return replace(
            self,
            input_ids=[self.input_ids[row] for row in rows],
            token_type_ids=[self.token_type_ids[row] for row in rows],
            labels=[self.labels[row] for row in rows],  # type: ignore[arg-type]  # all of one kind
        )

    def sample(self, rows: int) -> EncodedTexts:
        """That many rows, evenly spaced, or all."""
        return self.select(range(len(self))[:: max(1, -(-len(self) // rows))])

    def batch(self, rows: Sequence[int], *, pad_to: int = 0) -> Batch:
        """The named rows, padded on the right to the longest of them and at least to ``pad_to`` tokens."""
        longest = max(pad_to, *(len(self.input_ids[row]) for row in rows))
        shape = (len(rows), longest)
        input_ids = torch.full(shape, self.pad_token_id)
        attention_mask = torch.zeros(shape, dtype=torch.int64)
        token_type_ids = torch.zeros(shape, dtype=torch.int64)
        for position, row in enumerate(rows):
            length = len(self.input_ids[row])
            input_ids[position, :length] = torch.tensor(self.input_ids[row])
            attention_mask[position, :length] = 1
            token_type_ids[position, :length] = torch.tensor(self.token_type_ids[row])
        return Batch(input_ids, attention_mask, token_type_ids, torch.tensor([self.labels[row] for row in rows]))


def encode(data: Texts, labels: Labels, tokenizer: PreTrainedTokenizerBase, max_length: int) -> EncodedTexts:
    """Tokenises every row, truncated to ``max_length`` tokens with the special tokens."""
    encoded = tokenizer(
        list(data.texts),
        list(data.pairs) if data.pairs is not None else None,
        truncation=True,
        max_length=max_length,
        return_token_type_ids=True,
    )
    pad_token_id = tokenizer.pad_token_id
    return EncodedTexts(
        encoded["input_ids"],
        encoded["token_type_ids"],
        labels,
        pad_token_id if isinstance(pad_token_id, int) else 0,
    )


def training_batches(data: EncodedTexts, batch_size: int, *, seed: int, epoch: int) -> list[list[int]]:
    """The rows of each batch of one epoch: a function of its arguments alone, so that a run can resume.

    Every row occurs exactly once; rows of like length share a batch; the batches come in random order.
    """
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    order: list[int] = torch.randperm(len(data), generator=generator).tolist()
    pool = POOL_BATCHES * batch_size
    batches: list[list[int]] = []
    for start in range(0, len(order), pool):
        rows = sorted(order[start : start + pool], key=lambda row: len(data.input_ids[row]))
        batches += [rows[cut : cut + batch_size] for cut in range(0, len(rows), batch_size)]
    return [batches[index] for index in torch.randperm(len(batches), generator=generator).tolist()]


def sample_batches(data: EncodedTexts, count: int, seed: int) -> list[Batch]:
    """That many batches of 32 training rows, or fewer, that stand for all of them."""
    return [data.batch(rows) for rows in training_batches(data, 32, seed=seed, epoch=0)[:count]]


def evaluation_batches(data: EncodedTexts, batch_size: int) -> Iterator[tuple[list[int], Batch]]:
    """Rows and padded batch, shortest first."""
    order = sorted(range(len(data)), key=lambda row: len(data.input_ids[row]))
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        yield rows, data.batch(rows)
