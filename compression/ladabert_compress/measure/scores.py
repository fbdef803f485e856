"""What predictions are worth: accuracy, F1, correlation, calibration, agreement with the teacher."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ladabert_compress.measure.predictions import (
    Logits,
    Predictions,
    decide,
    divergences,
    macro_f1,
    matthews,
    share_of_equal_rows,
)
from ladabert_compress.measure.reliability import expected_calibration_error

METRICS: Mapping[str, Callable[[Predictions, Predictions], float]] = {
    "accuracy": share_of_equal_rows,
    "macro_f1": macro_f1,
    "matthews": matthews,
}


@dataclass(frozen=True)
class Scores:
    """What logits are worth against labels; a multi-label row is right, or agrees, where every label is."""

    accuracy: float
    expected_calibration_error: float  # of the scores as served, the temperature applied
    uncalibrated_error: float  # of the logits as they are
    agreement: float | None = None  # with the teacher's predictions
    divergence: float | None = None  # from the teacher's scores: KL in nats a row, both without a temperature
    macro_f1: float = 0.0  # the mean of the labels' F1
    matthews: float = 0.0  # Matthews' correlation with the labels


def score(
    logits: Logits, labels: npt.ArrayLike, teacher_logits: Logits | None = None, *, temperature: float = 1.0
) -> Scores:
    """Accuracy, calibration and, given the teacher's logits, how far it agrees with them."""
    truth = np.asarray(labels)
    predictions = decide(logits, truth)
    agreement = distance = None
    if teacher_logits is not None:
        agreement = share_of_equal_rows(predictions, decide(teacher_logits, truth))
        distance = float(divergences(teacher_logits, logits, truth).mean())
    return Scores(
        share_of_equal_rows(predictions, truth),
        expected_calibration_error(logits, truth, temperature),
        expected_calibration_error(logits, truth),
        agreement,
        distance,
        macro_f1(predictions, truth),
        matthews(predictions, truth),
    )
