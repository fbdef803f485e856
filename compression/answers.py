"""From logits to answers: one label a row, or several where the labels do not exclude each other."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Logits = npt.NDArray[np.float32]  # (N, labels)
Answers = npt.NDArray[np.int64]  # (N,), or (N, labels) of 0 and 1 where a row may have several labels


def decide(logits: Logits, like: Answers) -> Answers:
    """The highest label of each row, or 1 at every label with a score over a half, of the kind of ``like``."""
    return (logits > 0).astype(np.int64) if like.ndim == 2 else logits.argmax(axis=1)


def share_of_equal_rows(one: Answers, other: Answers) -> float:
    """The share of rows with the same answer; with several labels, all of them have to be the same."""
    return float((one == other).reshape(len(one), -1).all(axis=1).mean())


def accuracy(logits: Logits, labels: Answers) -> float:
    """The share of rows that are answered right."""
    return share_of_equal_rows(decide(logits, labels), labels)


def log_probabilities(logits: Logits, like: Answers, temperature: float = 1.0) -> npt.NDArray[np.float64]:
    """(N, labels) of softmax, or (N, labels, 2) of sigmoid's no and yes where ``like`` has several labels."""
    scaled = logits.astype(np.float64) / temperature
    if like.ndim == 2:
        return np.stack([-np.logaddexp(0, scaled), -np.logaddexp(0, -scaled)], axis=-1)
    return np.asarray(scaled - np.logaddexp.reduce(scaled, axis=1, keepdims=True))


def confusion(answers: Answers, labels: Answers, count: int) -> list[list[int]]:
    """Rows by label and answer, (labels, labels); with several labels a row, (labels, 4).

    The four are: rightly yes, wrongly yes, wrongly no, rightly no.
    """
    if labels.ndim == 1:
        counts = np.bincount(labels * count + answers, minlength=count * count).reshape(count, count)
    else:
        yes, true = answers.astype(bool), labels.astype(bool)
        counts = np.stack([yes & true, yes & ~true, ~yes & true, ~yes & ~true]).sum(axis=1).T
    return [[int(value) for value in line] for line in counts]
