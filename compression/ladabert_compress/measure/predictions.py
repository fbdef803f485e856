"""From logits to predictions: one label a row, a yes or no for each label of a multi-label task, or a score."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

Logits = npt.NDArray[np.float32]  # (N, labels)
Predictions = npt.NDArray[Any]  # int64 (N,), or (N, labels) of 0 and 1 in a multi-label task; scores are float (N,)


def are_scores(like: Predictions) -> bool:
    """Whether these are the scores of a regression and no labels."""
    return like.dtype.kind == "f"


def decide(logits: Logits, like: Predictions) -> Predictions:
    """The highest label of each row; where ``like`` is multi-label, 1 at every label with a score over a half.

    Where it has scores, the one logit.
    """
    if are_scores(like):
        return logits[:, 0]
    return (logits > 0).astype(np.int64) if like.ndim == 2 else logits.argmax(axis=1)


def share_of_equal_rows(one: Predictions, other: Predictions) -> float:
    """The share of rows with the same prediction; a multi-label row counts where every label is the same."""
    return float((one == other).reshape(len(one), -1).all(axis=1).mean())


def macro_f1(predictions: Predictions, labels: Predictions) -> float:
    """The mean over the labels of F1, the harmonic mean of precision and recall.

    A single-label task counts the labels that rows have or are given, as scikit-learn does; a multi-label task all.
    """
    if labels.ndim == 1:
        present = np.union1d(labels, predictions)
        predictions, labels = predictions[:, None] == present, labels[:, None] == present
    both = (predictions.astype(bool) & labels.astype(bool)).sum(axis=0)
    either = predictions.astype(bool).sum(axis=0) + labels.astype(bool).sum(axis=0)
    return float((2 * both / np.maximum(either, 1)).mean())


def matthews(predictions: Predictions, labels: Predictions) -> float:
    """Matthews' correlation of predictions with labels, 0 where either is always the same.

    That of a multi-label task is the mean over its labels.
    """
    if labels.ndim == 2:
        return float(np.mean([matthews(*columns) for columns in zip(predictions.T, labels.T, strict=True)]))
    present = np.union1d(labels, predictions)
    found, true = ((part[:, None] == present).astype(np.float64) for part in (predictions, labels))
    found, true = found - found.mean(axis=0), true - true.mean(axis=0)
    size = math.sqrt(np.square(found).sum() * np.square(true).sum())
    return float((found * true).sum() / size) if size else 0.0


def pearson(predictions: Predictions, scores: Predictions) -> float:
    """The correlation of two (N,), 0 where either is always the same."""
    one, other = (values.astype(np.float64) - values.mean(dtype=np.float64) for values in (predictions, scores))
    size = math.sqrt(np.square(one).sum() * np.square(other).sum())
    return float((one * other).sum() / size) if size else 0.0


def spearman(predictions: Predictions, scores: Predictions) -> float:
    """The correlation of the ranks of two (N,); equal values share the mean of their ranks."""
    return pearson(*map(_ranks, (predictions, scores)))


def _ranks(values: Predictions) -> npt.NDArray[np.float64]:
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((counts.cumsum() - (counts - 1) / 2)[places])


def as_served(logits: Logits, like: Predictions, temperature: float = 1.0) -> npt.NDArray[np.float64]:
    """The scores that a server answers with, as :func:`log_probabilities` shapes them; a regression's logits (N, 1)."""
    if are_scores(like):
        return logits.astype(np.float64)
    return np.exp(log_probabilities(logits, like, temperature))


def log_probabilities(logits: Logits, like: Predictions, temperature: float = 1.0) -> npt.NDArray[np.float64]:
    """(N, labels) of softmax; where ``like`` is multi-label, (N, labels, 2) of sigmoid's no and yes."""
    scaled = logits.astype(np.float64) / temperature
    if like.ndim == 2:
        return np.stack([-np.logaddexp(0, scaled), -np.logaddexp(0, -scaled)], axis=-1)
    return np.asarray(scaled - np.logaddexp.reduce(scaled, axis=1, keepdims=True))


def divergences(teacher: Logits, student: Logits, like: Predictions) -> npt.NDArray[np.float64]:
    """The KL divergence of the student's scores from the teacher's in each row, in nats, summed over its labels.

    That of a regression is half of the squared difference: the one of normal distributions of variance 1.
    """
    if are_scores(like):
        return np.asarray(np.square(teacher[:, 0].astype(np.float64) - student[:, 0]) / 2)
    expected, found = log_probabilities(teacher, like), log_probabilities(student, like)
    return np.asarray((np.exp(expected) * (expected - found)).reshape(len(expected), -1).sum(axis=1))


def confusion(predictions: Predictions, labels: Predictions, count: int) -> list[list[int]]:
    """(label, prediction, rows) of every pair that occurs: few lines, whatever the number of labels.

    A multi-label task has (labels, 4): true positives, false positives, false negatives, true negatives.
    """
    if labels.ndim == 1:
        pairs, rows = np.unique(labels * count + predictions, return_counts=True)
        counts = np.stack([pairs // count, pairs % count, rows], axis=1)
    else:
        yes, true = predictions.astype(bool), labels.astype(bool)
        counts = np.stack([yes & true, yes & ~true, ~yes & true, ~yes & ~true]).sum(axis=1).T
    return [[int(value) for value in line] for line in counts]
