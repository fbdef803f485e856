"""The temperature that brings scores in line with how often they are right (Guo et al. 2017)."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numpy as np

from ladabert_compress.measure.predictions import Logits, Predictions, are_scores, log_probabilities
from ladabert_compress.measure.reliability import expected_calibration_error

LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE = 0.1, 10.0
# Of the likelihood ratio against temperature 1, twice its logarithm: chi-squared with one degree of freedom at 99 %.
LEAST_EVIDENCE = 6.63


@dataclass(frozen=True)
class Calibration:
    """A temperature, the rows that it was fitted on, and other rows' calibration error without and with it."""

    temperature: float
    rows: int
    ece_before: float | None = None  # the scores of a regression have none
    ece_after: float | None = None

    def to_dict(self) -> dict[str, float]:
        """What the manifest says of it."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def fit_calibration(
    held_out: Logits | None, held_out_labels: Predictions, logits: Logits, labels: Predictions
) -> Calibration:
    """The temperature of held-out rows and what it changes on other rows; 1 where they do not support another.

    A few rows that happen to be right would ask for scores that are surer than the model is.
    """
    if are_scores(labels):
        return Calibration(1.0, 0)
    temperature = 1.0 if held_out is None else fit_temperature(held_out, held_out_labels)
    if held_out is not None and evidence(held_out, held_out_labels, temperature) < LEAST_EVIDENCE:
        temperature = 1.0
    before, after = (expected_calibration_error(logits, labels, value) for value in (1.0, temperature))
    return Calibration(temperature, 0 if held_out is None else len(held_out), before, after)


def fit_temperature(logits: Logits, labels: Predictions) -> float:
    """The temperature from 0.1 to 10 of the smallest negative log-likelihood, by golden-section search.

    One imagined decision for each choice (Platt 1999) keeps it finite where every prediction is right.
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


def evidence(logits: Logits, labels: Predictions, temperature: float) -> float:
    """How much likelier the temperature makes these labels than 1 does: twice the logarithm of the ratio."""
    gained = log_probabilities(logits, labels, temperature) - log_probabilities(logits, labels, 1.0)
    return 2 * float(np.take_along_axis(gained, labels[..., None], axis=-1).sum())


def _smoothed_loss(logits: Logits, labels: Predictions, temperature: float) -> float:
    logs = log_probabilities(logits, labels, temperature)
    choices = logs.shape[-1]
    right = np.take_along_axis(logs, labels[..., None], axis=-1).mean()
    decisions = logs.size // choices
    return float(-(decisions * right + logs.mean() * choices) / (decisions + choices))
