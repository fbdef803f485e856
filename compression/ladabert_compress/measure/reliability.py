"""How well scores match how often predictions are right: reliability and expected calibration error."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ladabert_compress.measure.predictions import Logits, Predictions, log_probabilities

BINS = 15


@dataclass(frozen=True)
class Bin:
    """The decisions of like confidence: how many, how sure on average, and how often right."""

    decisions: int
    confidence: float
    accuracy: float


def reliability(logits: Logits, labels: Predictions, temperature: float = 1.0) -> list[Bin]:
    """The decisions in 15 equal bins of confidence, empty ones left out.

    A row is one decision; in a multi-label task, each label of a row is one.
    """
    probabilities = np.exp(log_probabilities(logits, labels, temperature))  # (N, choices) or (N, labels, 2)
    confidence = probabilities.max(axis=-1).ravel()
    right = (probabilities.argmax(axis=-1) == labels).ravel()
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    return [
        Bin(int(chosen.sum()), float(confidence[chosen].mean()), float(right[chosen].mean()))
        for chosen in (bins == index for index in np.unique(bins))
    ]


def expected_calibration_error(logits: Logits, labels: Predictions, temperature: float = 1.0) -> float:
    """The mean gap between confidence and accuracy over the decisions, bin by bin."""
    bins = reliability(logits, labels, temperature)
    gaps = sum(entry.decisions * abs(entry.confidence - entry.accuracy) for entry in bins)
    return gaps / sum(entry.decisions for entry in bins)
