"""Tokenises rows once and deals them out in batches of like length."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ladabert_compress.data.texts import Texts

# Batches are cut from pools of this many batches sorted by length: long enough to make padding rare,
# short enough that the composition of batches still changes from epoch to epoch.
POOL_BATCHES = 64
ROWS_AT_ONCE = 8192  # to tokenise: as lists, tokens take ten times the memory

Labels = npt.NDArray[Any]  # int64 (N,), or (N, labels) of 0 and 1 in a multi-label task; float64 (N,) in a regression


@dataclass(frozen=True)
class Batch:
    """One padded batch, each tensor (B, T) int64.

    ``labels`` is (B,), or (B, labels) in a multi-label task, or (B,) float64 in a regression.
    """

    input_ids: Tensor
    attention_mask: Tensor
    token_type_ids: Tensor
    labels: Tensor

    @property
    def problem_type(self) -> str:
        """As the manifest names it."""
        if self.labels.is_floating_point():
            return "regression"
        return "multi_label" if self.labels.ndim == 2 else "single_label"

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""
        tensors = (self.input_ids, self.attention_mask, self.token_type_ids, self.labels)
        return Batch(*(tensor.to(device) for tensor in tensors))

    def twice(self) -> Batch:
        """All rows, and then all of them again."""
        tensors = (self.input_ids, self.attention_mask, self.token_type_ids, self.labels)
        return Batch(*(torch.cat([tensor, tensor]) for tensor in tensors))


@dataclass(frozen=True, eq=False)
class EncodedTexts:
    """Rows of tokens without padding, in flat arrays: a token takes five bytes, in lists it takes over fifty.

    Attributes:
        token_ids: (tokens,) int32, the rows one after the other.
        token_types: (tokens,) int8.
        bounds: (rows + 1,), where each row begins and the last one ends.
        labels: of each row.
        pad_token_id: what batches are padded with.
    """

    token_ids: npt.NDArray[np.int32]
    token_types: npt.NDArray[np.int8]
    bounds: npt.NDArray[np.int64]
    labels: Labels
    pad_token_id: int

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, EncodedTexts):
            return NotImplemented
        return self.pad_token_id == other.pad_token_id and all(map(np.array_equal, self._arrays, other._arrays))

    __hash__ = None  # type: ignore[assignment]  # as of other arrays

    @property
    def _arrays(self) -> tuple[npt.NDArray[Any], ...]:
        return self.token_ids, self.token_types, self.bounds, self.labels

    @cached_property
    def lengths(self) -> npt.NDArray[np.int64]:
        """The tokens of each row, special ones included."""
        return np.diff(self.bounds)

    @property
    def rows(self) -> list[npt.NDArray[np.int32]]:
        """The token ids of each row."""
        return np.split(self.token_ids, self.bounds[1:-1]) if len(self) else []

    def digest(self) -> bytes:
        """The sha256 of all of it."""
        digest = hashlib.sha256()
        for values in self._arrays:
            digest.update(np.ascontiguousarray(values).data)
        return digest.digest()

    def select(self, rows: Sequence[int]) -> EncodedTexts:
        """The named rows alone."""
        chosen = np.array(rows, dtype=np.int64)
        lengths = self.lengths[chosen]
        bounds = np.concatenate([[0], lengths.cumsum()])
        places = np.repeat(self.bounds[chosen] - bounds[:-1], lengths) + np.arange(bounds[-1])
        return replace(
            self,
            token_ids=self.token_ids[places],
            token_types=self.token_types[places],
            bounds=bounds,
            labels=self.labels[chosen],
        )

    def sample(self, rows: int) -> EncodedTexts:
        """That many rows, evenly spaced, or all."""
        return self.select(range(len(self))[:: max(1, -(-len(self) // rows))])

    def batch(self, rows: Sequence[int], *, pad_to: int = 0) -> Batch:
        """The named rows, padded on the right to the longest of them and at least to ``pad_to`` tokens."""
        chosen = self.select(rows)
        is_real = np.arange(max(pad_to, *chosen.lengths)) < chosen.lengths[:, None]
        input_ids = np.full(is_real.shape, self.pad_token_id)
        input_ids[is_real] = chosen.token_ids
        token_type_ids = np.zeros(is_real.shape, dtype=np.int64)
        token_type_ids[is_real] = chosen.token_types
        arrays = (input_ids, is_real.astype(np.int64), token_type_ids, chosen.labels)
        return Batch(*map(torch.from_numpy, arrays))


def encode(data: Texts, labels: npt.ArrayLike, tokenizer: PreTrainedTokenizerBase, max_length: int) -> EncodedTexts:
    """Tokenises every row, truncated to ``max_length`` tokens with the special tokens."""
    token_ids, token_types, lengths = array("i"), array("b"), array("q", [0])
    for start in range(0, len(data), ROWS_AT_ONCE):
        part = slice(start, start + ROWS_AT_ONCE)
        encoded = tokenizer(
            list(data.texts[part]),
            None if data.pairs is None else list(data.pairs[part]),
            truncation=True,
            max_length=max_length,
            return_token_type_ids=True,
            return_attention_mask=False,
        )
        for ids, types in zip(encoded["input_ids"], encoded["token_type_ids"], strict=True):
            token_ids.extend(ids)
            token_types.extend(types)
            lengths.append(len(ids))
    pad_token_id = tokenizer.pad_token_id
    return EncodedTexts(
        np.array(token_ids, dtype=np.int32),
        np.array(token_types, dtype=np.int8),
        np.cumsum(lengths, dtype=np.int64),
        np.asarray(labels),
        pad_token_id if isinstance(pad_token_id, int) else 0,
    )


def training_batches(data: EncodedTexts, batch_size: int, *, seed: int, epoch: int) -> list[list[int]]:
    """The rows of each batch of one epoch: a function of its arguments alone, so that a run can resume.

    Every row occurs exactly once; rows of like length share a batch; the batches come in random order.
    """
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    order: list[int] = torch.randperm(len(data), generator=generator).tolist()
    pool = POOL_BATCHES * batch_size
    lengths, batches = data.lengths.tolist(), list[list[int]]()
    for start in range(0, len(order), pool):
        rows = sorted(order[start : start + pool], key=lengths.__getitem__)
        batches += [rows[cut : cut + batch_size] for cut in range(0, len(rows), batch_size)]
    return [batches[index] for index in torch.randperm(len(batches), generator=generator).tolist()]


def divide_batch(data: EncodedTexts, rows: Sequence[int], tokens: int) -> list[Sequence[int]]:
    """The rows of a batch in as few parts of like size as it takes for at most ``tokens``, padding included, in each.

    A row that is longer is a part by itself.
    """
    longest = int(data.lengths[list(rows)].max())
    size = max(1, tokens // longest)
    count = -(-len(rows) // size)
    cuts = [len(rows) * part // count for part in range(count + 1)]
    return [rows[start:end] for start, end in pairwise(cuts)]


def sample_batches(data: EncodedTexts, count: int, seed: int) -> list[Batch]:
    """That many batches of 32 training rows, or fewer, that stand for all of them."""
    return [data.batch(rows) for rows in training_batches(data, 32, seed=seed, epoch=0)[:count]]


def evaluation_batches(data: EncodedTexts, batch_size: int) -> Iterator[tuple[list[int], Batch]]:
    """Rows and padded batch, shortest first."""
    order: list[int] = data.lengths.argsort(kind="stable").tolist()
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        yield rows, data.batch(rows)
