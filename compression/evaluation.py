"""What a graph answers on labelled texts, and what that is worth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from compression.answers import Logits, accuracy, decide, share_of_equal_rows
from compression.batches import EncodedTexts, Labels, evaluation_batches
from compression.calibration import expected_calibration_error
from compression.onnx_session import OnnxSession


@dataclass(frozen=True)
class Scores:
    """What logits are worth against labels; ``agreement`` is with the teacher, where it was asked.

    A row with several labels is right, or agrees, where all of them do.
    """

    accuracy: float
    expected_calibration_error: float  # of the scores as served, the temperature applied
    uncalibrated_error: float  # of the logits as they are
    agreement: float | None = None


def onnx_logits(session: OnnxSession, data: EncodedTexts, batch_size: int = 32) -> Logits:
    """Logits (N, classes) in the rows' order, from length-sorted batches."""
    logits: dict[int, Logits] = {}
    for rows, batch in evaluation_batches(data, batch_size):
        logits.update(zip(rows, session.logits(batch), strict=True))
    return np.stack([logits[row] for row in range(len(data))])


def score(logits: Logits, labels: Labels, teacher_logits: Logits | None = None, *, temperature: float = 1.0) -> Scores:
    """Accuracy, calibration and, given the teacher's logits, the share of rows with the same answer."""
    truth = np.array(labels)
    agreement = None
    if teacher_logits is not None:
        agreement = share_of_equal_rows(decide(logits, truth), decide(teacher_logits, truth))
    return Scores(
        accuracy(logits, truth),
        expected_calibration_error(logits, truth, temperature),
        expected_calibration_error(logits, truth),
        agreement,
    )
