"""Whether int8 is worth its bytes: what it loses against fp32 on rows that changed no weight and report nothing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ladabert_compress.measure.predictions import Logits, Predictions, decide, divergences
from ladabert_compress.measure.scores import METRICS
from ladabert_compress.recipe import ExportRecipe

RESAMPLES = 200
ONE_SIDED_95 = 1.645  # standard errors


@dataclass(frozen=True)
class Paired:
    """What int8 is worse by on the same rows, and the standard error of that."""

    lost: float
    standard_error: float

    def is_over(self, allowed: float) -> bool:
        """Whether more than that is lost, at 95 % confidence: a few rows say little."""
        return self.lost - ONE_SIDED_95 * self.standard_error > allowed


@dataclass(frozen=True)
class Int8Trial:
    """What int8 loses of the metric and, against the teacher's scores, in nats a row.

    Attributes:
        rows: how many were looked at.
        labels: whose they are: ``data`` or ``teacher``.
        metric: the one that the recipe guards.
        loss: of the metric.
        divergence: KL from the teacher's scores that int8 adds.
    """

    rows: int
    labels: str
    metric: str
    loss: Paired
    divergence: Paired

    def refusal(self, guards: ExportRecipe) -> str | None:
        """Why int8 is not near enough to fp32, if so; its scores count where nobody labelled the rows."""
        where = f"int8 refused: on {self.rows:,} held-out rows"
        end = "by more than chance; fp32 is written instead"
        if self.loss.is_over(guards.int8_accuracy_loss):
            whose = "their labels" if self.labels == "data" else "the teacher's labels"
            return (
                f"{where} it loses {self.loss.lost:.4f} ± {self.loss.standard_error:.4f} of {self.metric} on {whose}, "
                f"over the recipe's int8_accuracy_loss of {guards.int8_accuracy_loss:g} {end}"
            )
        if self.labels != "data" and self.divergence.is_over(guards.int8_divergence):
            return (
                f"{where} its KL from the teacher is {self.divergence.lost:.4f} ± {self.divergence.standard_error:.4f} "
                f"over fp32's, over the recipe's int8_divergence of {guards.int8_divergence:g} {end}"
            )
        return None

    def to_dict(self) -> dict[str, str | int | float]:
        """What the manifest says of it."""
        return {
            "rows": self.rows,
            "labels": self.labels,
            "metric": self.metric,
            "lost": round(self.loss.lost, 5),
            "standard_error": round(self.loss.standard_error, 5),
        }


def try_int8(
    metric: str, fp32: Logits, int8: Logits, teacher: Logits, labels: Predictions, *, labelled: bool
) -> Int8Trial:
    """Compares the two graphs on the same rows, by the bootstrap (Efron 1979) over pairs of answers.

    Args:
        metric: one of ``METRICS``.
        fp32: logits (N, labels).
        int8: of the other graph.
        teacher: of the teacher.
        labels: of the rows; where they are not ``labelled``, only their shape counts.
        labelled: whether the labels are those of the data; else the teacher's predictions take their place.
    """
    truth = labels if labelled else decide(teacher, labels)
    before, after = decide(fp32, truth), decide(int8, truth)
    added = divergences(teacher, int8, labels) - divergences(teacher, fp32, labels)
    divergence = Paired(float(added.mean()), float(added.std() / len(added) ** 0.5))
    loss = paired_loss(metric, before, after, truth)
    return Int8Trial(len(truth), "data" if labelled else "teacher", metric, loss, divergence)


def paired_loss(metric: str, before: Predictions, after: Predictions, truth: Predictions) -> Paired:
    """What the predictions ``after`` lose of the metric; both are measured on the same rows each time."""
    measure, generator = METRICS[metric], np.random.default_rng(0)
    losses = []
    for _ in range(RESAMPLES):
        rows = generator.integers(len(truth), size=len(truth))
        losses.append(measure(before[rows], truth[rows]) - measure(after[rows], truth[rows]))
    return Paired(measure(before, truth) - measure(after, truth), float(np.std(losses)))
