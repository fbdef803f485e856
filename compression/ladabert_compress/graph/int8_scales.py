"""Int8 scales: of weights, one per output channel; of activations, fixed ones from the ranges of training rows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from transformers import BertForSequenceClassification

from ladabert_compress.data.batches import Batch
from ladabert_compress.measure.inference import classify, removed_at_the_end
from ladabert_compress.student.factors import FactorisedLinear

Array = npt.NDArray[np.float32]


@dataclass
class Range:
    """The smallest and largest value of an activation; the range always contains zero."""

    low: float = 0.0
    high: float = 0.0

    def widen(self, values: Tensor) -> None:
        """Widens the range to hold these values."""
        self.low = min(self.low, float(values.min()))
        self.high = max(self.high, float(values.max()))

    def scale_and_zero_point(self) -> tuple[np.float32, np.uint8]:
        """Maps the range to 0…255 with zero on a whole number."""
        scale = max(self.high - self.low, 1e-6) / 255
        return np.float32(scale), np.uint8(np.clip(round(-self.low / scale), 0, 255))


Ranges = dict[str, Range]


@torch.inference_mode()
def measure_activation_ranges(model: BertForSequenceClassification, batches: Iterable[Batch]) -> Ranges:
    """The range of every linear layer's input over real tokens; ``NAME.rank`` is that of the input times B.

    With scales fixed here, a text's scores do not depend on its batch; with a scale per batch they would.
    """
    ranges: Ranges = {}
    token_mask: list[Tensor] = []

    def watch(name: str, module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        inputs = arguments[0]
        if inputs.ndim == 3:  # (B, T, n): leave padding out; the pooler's input is (B, n)
            inputs = inputs[token_mask[0]]
        ranges.setdefault(name, Range()).widen(inputs)
        if isinstance(module, FactorisedLinear):
            ranges.setdefault(f"{name}.rank", Range()).widen(inputs @ module.right)

    hooks = (
        module.register_forward_pre_hook(partial(watch, name))
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | FactorisedLinear)
    )
    with removed_at_the_end(hooks):
        for batch in batches:
            token_mask[:] = [batch.attention_mask.bool()]
            classify(model, batch)
    return ranges


def quantise_columns(weight: Array, bits: int = 8) -> tuple[npt.NDArray[np.int8], Array]:
    """A (k, n) weight as int8 with one symmetric scale (n,) for each column: 127 steps a side, 63 with 7 bits."""
    scales = np.abs(weight).max(axis=0) / (2 ** (bits - 1) - 1)
    scales[scales == 0] = 1.0
    return np.round(weight / scales).astype(np.int8), scales.astype(np.float32)


def quantise_rows(table: Array) -> tuple[npt.NDArray[np.uint8], Array]:
    """A (rows, k) table as uint8 around 128 with one scale (rows, 1) for each row, which fp16 can hold."""
    exact = np.abs(table).max(axis=1, keepdims=True) / 127
    scales = exact.astype(np.float16)
    scales = np.where(scales < exact, np.nextafter(scales, np.float16(np.inf)), scales).astype(np.float32)
    scales[exact == 0] = 1.0
    return (np.round(table / scales).astype(np.int16) + 128).astype(np.uint8), scales
