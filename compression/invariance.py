"""Whether a text answers the same alone, among others, and padded as far as the model reads."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from compression.answers import Logits, decide, log_probabilities
from compression.batches import EncodedTexts
from compression.onnx_session import OnnxSession

BATCH_SIZE = 32


@dataclass(frozen=True)
class Invariance:
    """Over all rows and ways to batch them: the largest change of a score, and how many labels changed."""

    rows: int
    largest_score_change: float
    changed_labels: int


def measure_invariance(session: OnnxSession, data: EncodedTexts, max_length: int) -> Invariance:
    """Compares each row alone with batches of 32 in the rows' order, and with those padded to ``max_length``."""
    like = np.array(data.labels)
    alone = np.concatenate([session.logits(data.batch([row])) for row in tqdm(range(len(data)), desc="alone")])
    worst, changed = 0.0, np.zeros(len(data), dtype=bool)
    for pad_to in (0, max_length):
        together = _in_batches(session, data, pad_to)
        change = np.exp(log_probabilities(together, like)) - np.exp(log_probabilities(alone, like))
        worst = max(worst, float(np.abs(change).max()))
        changed |= (decide(together, like) != decide(alone, like)).reshape(len(data), -1).any(axis=1)
    return Invariance(len(data), worst, int(changed.sum()))


def _in_batches(session: OnnxSession, data: EncodedTexts, pad_to: int) -> Logits:
    starts = tqdm(range(0, len(data), BATCH_SIZE), desc=f"batches of {BATCH_SIZE}")
    rows = (range(start, min(start + BATCH_SIZE, len(data))) for start in starts)
    return np.concatenate([session.logits(data.batch(batch, pad_to=pad_to)) for batch in rows])
