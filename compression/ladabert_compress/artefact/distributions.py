"""How often each label, score and length came on the evaluation's rows: what a server compares its traffic with."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ladabert_compress.measure.predictions import Logits, Predictions, are_scores, log_probabilities

SCORE_BINS = 20  # equal ones, from 0 to 1
DECIMALS = 4  # of a regression's bounds
LENGTH_BOUNDS = 2 ** np.arange(2, 17)  # tokens: up to 4, 8, … 65536; the last bin holds longer texts


def distributions(
    logits: Logits, lengths: npt.ArrayLike, like: Predictions, temperature: float
) -> dict[str, list[Any]]:
    """Counts of the best labels in logit order, of their scores as served, and of the lengths in tokens.

    A bin holds what is over its lower bound and up to its upper bound. ``like`` tells a multi-label task by its shape.
    The scores of a regression have no limits: their bins are as full as each other here, and ``score_bounds`` are told.
    """
    counted = {
        "labels": _counts(logits.argmax(axis=1), logits.shape[1]),
        "lengths": _counts(np.searchsorted(LENGTH_BOUNDS, lengths), len(LENGTH_BOUNDS) + 1),
    }
    if are_scores(like):
        bounds = np.quantile(logits, np.arange(1, SCORE_BINS) / SCORE_BINS).astype(np.float64).round(DECIMALS)
        bins = np.searchsorted(bounds, logits[:, 0])
        return {**counted, "scores": _counts(bins, SCORE_BINS), "score_bounds": bounds.tolist()}
    probabilities = np.exp(log_probabilities(logits, like, temperature))
    scores = (probabilities[..., 1] if like.ndim == 2 else probabilities).max(axis=1)
    score_bins = np.clip(np.ceil(scores * SCORE_BINS).astype(np.int64) - 1, 0, SCORE_BINS - 1)
    return {**counted, "scores": _counts(score_bins, SCORE_BINS)}


def _counts(bins: Any, count: int) -> list[int]:
    return [int(value) for value in np.bincount(bins, minlength=count)]
