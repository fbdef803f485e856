"""Whether a graph computes what it should: as PyTorch, whatever shares its batch, and wherever it is loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor
from tqdm import tqdm
from transformers import BertForSequenceClassification

from ladabert_compress.data.batches import EncodedTexts
from ladabert_compress.data.random_batches import parity_batches, random_batch
from ladabert_compress.errors import ExportError
from ladabert_compress.graph.session import OnnxSession
from ladabert_compress.measure.inference import classify
from ladabert_compress.measure.predictions import Logits, are_scores, as_served, decide
from ladabert_compress.measure.timing import Runner

FP32_TOLERANCE = 2e-5  # of a logit against PyTorch, over the spread of the logits
LEAST_SPREAD = 0.01  # of the logits, over the largest of them: rounding errors are no smaller than that allows
HALF_TOLERANCE = 0.02  # of a score, fp16 against fp32
INVARIANCE_TOLERANCE = 1e-3  # of a score, alone against in a batch
INVARIANCE_BATCH_SIZE = 32
INVARIANCE_ROWS = 256  # at most: each is a run of its own
SELF_TEST_ROWS, SELF_TEST_TOKENS, DECIMALS = 4, 12, 4


@torch.inference_mode()
def check_parity(model: BertForSequenceClassification, graph: onnx.ModelProto, max_length: int) -> float:
    """The largest difference between the graph's and PyTorch's logits over sizes, lengths and padding.

    Returns:
        The difference over the logits' spread, which is the largest less the smallest of all that PyTorch computes.

    Raises:
        ExportError: it is over 2e-5.
    """
    session = OnnxSession(graph.SerializeToString())
    batches = list(parity_batches(model.config.vocab_size, max_length))
    expected = [classify(model, batch).numpy() for batch in batches]
    worst = max(
        float(np.abs(session.logits(batch) - logits).max()) for batch, logits in zip(batches, expected, strict=True)
    )
    every = np.concatenate(expected, axis=None)
    spread = max(float(np.ptp(every)), LEAST_SPREAD * float(np.abs(every).max()))
    if not worst <= FP32_TOLERANCE * spread:
        raise ExportError(
            f"the fp32 graph's logits differ from PyTorch's by {worst:.2g}, allowed {FP32_TOLERANCE * spread:.2g}, "
            f"{FP32_TOLERANCE:g} of their spread"
        )
    return worst / spread if spread else 0.0


def check_half(fp32: onnx.ModelProto, fp16: onnx.ModelProto, max_length: int, problem_type: str) -> float:
    """The largest difference of a score between the two graphs on the CPU, over sizes, lengths and padding.

    Raises:
        ExportError: it is over 0.02.
    """
    sessions = [OnnxSession(graph.SerializeToString()) for graph in (fp32, fp16)]
    functions: dict[str, Callable[[Tensor], Tensor]] = {"multi_label": torch.sigmoid, "regression": torch.clone}
    scores = functions.get(problem_type, partial(torch.softmax, dim=1))
    worst = 0.0
    for batch in parity_batches(_vocabulary(fp32), max_length):
        expected, found = (scores(torch.from_numpy(session.logits(batch))) for session in sessions)
        scale = max(1.0, float(expected.std())) if problem_type == "regression" else 1.0
        worst = max(worst, float((expected - found).abs().max()) / scale)
    if not worst <= HALF_TOLERANCE:
        raise ExportError(f"fp16: a score differs from fp32's by {worst:.2g}, allowed {HALF_TOLERANCE:g}")
    return worst


def _vocabulary(model: onnx.ModelProto) -> int:
    """Rows of the word embeddings: the table that the input ids are looked up in."""
    (lookup,) = [node for node in model.graph.node if node.op_type == "Gather" and node.input[1] == "input_ids"]
    return next(int(tensor.dims[0]) for tensor in model.graph.initializer if tensor.name == lookup.input[0])


@dataclass(frozen=True)
class Invariance:
    """The largest change of a score and the number of changed labels, over the rows and ways to batch them."""

    rows: int
    largest_score_change: float
    changed_labels: int


def measure_invariance(session: Runner, data: EncodedTexts, max_length: int) -> Invariance:
    """Compares each row alone with batches of 32 in the rows' order, and with those padded to ``max_length``."""
    like = data.labels
    alone = np.concatenate([session.logits(data.batch([row])) for row in tqdm(range(len(data)), desc="alone")])
    worst, changed = 0.0, np.zeros(len(data), dtype=bool)
    scale = max(1.0, float(alone.std())) if are_scores(like) else 1.0  # those of a regression may be large
    for pad_to in (0, max_length):
        together = _in_batches(session, data, pad_to)
        change = as_served(together, like) - as_served(alone, like)
        worst = max(worst, float(np.abs(change).max()) / scale)
        if are_scores(like):
            continue
        changed |= (decide(together, like) != decide(alone, like)).reshape(len(data), -1).any(axis=1)
    return Invariance(len(data), worst, int(changed.sum()))


def _in_batches(session: Runner, data: EncodedTexts, pad_to: int) -> Logits:
    starts = tqdm(range(0, len(data), INVARIANCE_BATCH_SIZE), desc=f"batches of {INVARIANCE_BATCH_SIZE}")
    rows = (range(start, min(start + INVARIANCE_BATCH_SIZE, len(data))) for start in starts)
    return np.concatenate([session.logits(data.batch(batch, pad_to=pad_to)) for batch in rows])


def check_batch_invariance(session: Runner, name: str, data: EncodedTexts, max_length: int) -> Invariance:
    """By how much the scores of 256 rows, or fewer, change between alone, in batches of 32, and padded to the limit.

    A label may change where its score is as high as the next one's, within the tolerance.

    Raises:
        ExportError: a score changes by more than 1e-3.
    """
    found = measure_invariance(session, data.sample(INVARIANCE_ROWS), max_length)
    if not found.largest_score_change <= INVARIANCE_TOLERANCE:
        raise ExportError(f"{name}: a text's scores change by {found.largest_score_change:.2g} with its batch")
    return found


def self_test(sessions: Mapping[str, OnnxSession], vocabulary: int, max_length: int) -> dict[str, Any]:
    """The manifest's ``self_test``: random tokens, the same for each vocabulary, and each file's logits.

    Returns:
        ``input_ids`` (4, T) without padding, T at most 12, and ``logits`` by file, each (4, classes).
    """
    batch = random_batch(vocabulary, (SELF_TEST_ROWS, min(SELF_TEST_TOKENS, max_length)))
    logits = {file: session.logits(batch).astype(float).round(DECIMALS).tolist() for file, session in sessions.items()}
    return {"input_ids": batch.input_ids.tolist(), "logits": logits}
