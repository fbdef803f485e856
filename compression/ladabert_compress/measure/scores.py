"""What predictions are worth: accuracy, F1, correlation, calibration, agreement with the teacher."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ladabert_compress.errors import RecipeError
from ladabert_compress.measure.predictions import (
    Logits,
    Predictions,
    are_scores,
    decide,
    divergences,
    macro_f1,
    matthews,
    pearson,
    share_of_equal_rows,
    spearman,
)
from ladabert_compress.measure.reliability import expected_calibration_error

Metric = Callable[[Predictions, Predictions], float]

# The first of each is what a run reports, and what int8 is judged by where the recipe says no other.
OF_LABELS: Mapping[str, Metric] = {"accuracy": share_of_equal_rows, "macro_f1": macro_f1, "matthews": matthews}
OF_SCORES: Mapping[str, Metric] = {"pearson": pearson, "spearman": spearman}
METRICS = {**OF_LABELS, **OF_SCORES}


@dataclass(frozen=True)
class Scores:
    """What logits are worth; a multi-label row is right, or agrees, where every label is.

    Labels have an accuracy, F1, Matthews' correlation and calibration; the scores of a regression have correlations.
    """

    accuracy: float | None = None
    expected_calibration_error: float | None = None  # of the scores as served, the temperature applied
    uncalibrated_error: float | None = None  # of the logits as they are
    agreement: float | None = None  # with the teacher's predictions: a share of rows, or of scores the correlation
    divergence: float | None = None  # from the teacher's scores: KL in nats a row, both without a temperature
    macro_f1: float | None = None  # the mean of the labels' F1
    matthews: float | None = None  # Matthews' correlation with the labels
    pearson: float | None = None
    spearman: float | None = None


def score(
    logits: Logits, labels: npt.ArrayLike, teacher_logits: Logits | None = None, *, temperature: float = 1.0
) -> Scores:
    """Every figure that fits the labels and, given the teacher's logits, how far the predictions agree with it."""
    truth = np.asarray(labels)
    predictions, metrics = decide(logits, truth), metrics_of(truth)
    figures = {name: measure(predictions, truth) for name, measure in metrics.items()}
    if teacher_logits is not None:
        figures["agreement"] = metrics[main_metric(truth)](predictions, decide(teacher_logits, truth))
        figures["divergence"] = float(divergences(teacher_logits, logits, truth).mean())
    if not are_scores(truth):
        figures["expected_calibration_error"] = expected_calibration_error(logits, truth, temperature)
        figures["uncalibrated_error"] = expected_calibration_error(logits, truth)
    return Scores(**figures)


def metrics_of(truth: Predictions) -> Mapping[str, Metric]:
    """What predictions can be compared with these labels or scores by."""
    return OF_SCORES if are_scores(truth) else OF_LABELS


def main_metric(truth: Predictions) -> str:
    """What a run reports: accuracy, or of scores Pearson's correlation."""
    return next(iter(metrics_of(truth)))


def int8_metric(wanted: str, truth: Predictions) -> str:
    """The metric that int8 is judged by on these labels or scores.

    Raises:
        RecipeError: it is one of the others.
    """
    fitting = metrics_of(truth)
    if wanted != "auto" and wanted not in fitting:
        raise RecipeError(f"export.int8_metric: {wanted} does not fit this teacher; choose auto, {', '.join(fitting)}")
    return main_metric(truth) if wanted == "auto" else wanted
