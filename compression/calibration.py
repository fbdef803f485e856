"""How far scores can be taken at their word, and the temperature that mends them (Guo et al. 2017)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from compression.answers import Answers, Logits, log_probabilities

BINS = 15
LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE = 0.1, 10.0


@dataclass(frozen=True)
class Calibration:
    """A temperature, the number of rows it was fitted on, and the errors on other rows without and with it."""

    temperature: float
    rows: int
    ece_before: float
    ece_after: float


@dataclass(frozen=True)
class Bin:
    """The decisions of like confidence: how many, how sure on average, and how often right."""

    decisions: int
    confidence: float
    accuracy: float


def reliability(logits: Logits, labels: Answers, temperature: float = 1.0) -> list[Bin]:
    """The decisions in 15 equal bins of confidence, empty ones left out.

    A row with one label is one decision; where a row may have several, each label is one.
    """
    probabilities = np.exp(log_probabilities(logits, labels, temperature))  # (N, choices) or (N, labels, 2)
    confidence = probabilities.max(axis=-1).ravel()
    right = (probabilities.argmax(axis=-1) == labels).ravel()
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    return [
        Bin(int(chosen.sum()), float(confidence[chosen].mean()), float(right[chosen].mean()))
        for chosen in (bins == index for index in np.unique(bins))
    ]


def expected_calibration_error(logits: Logits, labels: Answers, temperature: float = 1.0) -> float:
    """The mean gap between confidence and accuracy over the decisions, bin by bin."""
    bins = reliability(logits, labels, temperature)
    gaps = sum(entry.decisions * abs(entry.confidence - entry.accuracy) for entry in bins)
    return gaps / sum(entry.decisions for entry in bins)


def fit_temperature(logits: Logits, labels: Answers) -> float:
    """The temperature from 0.1 to 10 of the smallest negative log-likelihood, by golden-section search.

    One imagined decision for each choice (Platt 1999) keeps it finite where every row is answered right.
    """
    ratio = (math.sqrt(5) - 1) / 2
    low, high = math.log(LOWEST_TEMPERATURE), math.log(HIGHEST_TEMPERATURE)
    while high - low > 1e-4:
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        if _smoothed_loss(logits, labels, math.exp(left)) < _smoothed_loss(logits, labels, math.exp(right)):
            high = right
        else:
            low = left
    return math.exp((low + high) / 2)


def _smoothed_loss(logits: Logits, labels: Answers, temperature: float) -> float:
    logs = log_probabilities(logits, labels, temperature)
    choices = logs.shape[-1]
    right = np.take_along_axis(logs, labels[..., None], axis=-1).mean()
    decisions = logs.size // choices
    return float(-(decisions * right + logs.mean() * choices) / (decisions + choices))
