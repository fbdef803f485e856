"""The forward pass: what a PyTorch model says about rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle
from transformers import BertForSequenceClassification

from ladabert_compress.data.batches import Batch, EncodedTexts, evaluation_batches
from ladabert_compress.measure.predictions import decide
from ladabert_compress.measure.scores import METRICS, main_metric

EVALUATION_BATCH_SIZE = 64


def forward(model: BertForSequenceClassification, batch: Batch, **outputs: bool) -> Any:
    """The model's output for one batch, with what ``outputs`` asks for beside the logits."""
    return model(
        input_ids=batch.input_ids, attention_mask=batch.attention_mask, token_type_ids=batch.token_type_ids, **outputs
    )


def classify(model: BertForSequenceClassification, batch: Batch) -> Tensor:
    """Logits (B, classes) of one batch."""
    logits: Tensor = forward(model, batch).logits
    return logits


@torch.inference_mode()
def predict_logits(model: BertForSequenceClassification, data: EncodedTexts, device: torch.device) -> Tensor:
    """Logits (N, classes) of every row in fp32, in the rows' order, on the CPU."""
    model.eval()
    parts: list[Tensor] = []
    order: list[int] = []
    for rows, batch in evaluation_batches(data, EVALUATION_BATCH_SIZE):
        parts.append(classify(model, batch.to(device)).float().cpu())
        order += rows
    return torch.cat(parts)[torch.tensor(order).argsort()]


def evaluate_model(model: BertForSequenceClassification, data: EncodedTexts, device: torch.device) -> float:
    """The main metric on these rows: accuracy, or of scores Pearson's correlation."""
    predictions = decide(predict_logits(model, data, device).numpy(), data.labels)
    return METRICS[main_metric(data.labels)](predictions, data.labels)


@contextmanager
def removed_at_the_end(hooks: Iterable[RemovableHandle]) -> Iterator[None]:
    """Removes hooks of modules, whatever happens."""
    hooks = list(hooks)
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
