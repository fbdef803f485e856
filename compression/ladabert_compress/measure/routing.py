"""Which stage of a cascade answers each row, and what these answers are worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from ladabert_compress.measure.intervals import interval
from ladabert_compress.measure.predictions import Predictions

Thresholds = npt.NDArray[np.float64]  # (stages but the last, labels)
NEVER = 1.000001  # a threshold that no score reaches


@dataclass(frozen=True)
class StageAnswers:
    """What every stage says of every row, whichever of them would be asked."""

    labels: Predictions  # (stages, N): the best label's place among the cascade's labels
    sureness: npt.NDArray[np.float64]  # (stages, N): its score or margin
    costs_ms: tuple[float, ...]  # of one text, by stage
    label_count: int
    truth: Predictions | None = None  # (N,)

    def __len__(self) -> int:
        return int(self.labels.shape[1])

    def select(self, rows: Any) -> StageAnswers:
        """The named rows alone."""
        truth = None if self.truth is None else self.truth[rows]
        return replace(self, labels=self.labels[:, rows], sureness=self.sureness[:, rows], truth=truth)

    def halves(self, seed: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """The rows in two random halves, of which the second has one more where their number is odd."""
        order = np.random.default_rng(seed).permutation(len(self))
        return order[: len(self) // 2], order[len(self) // 2 :]

    def everything_goes_on(self) -> Thresholds:
        """The thresholds with which the last stage answers every row."""
        return np.full((len(self.costs_ms) - 1, self.label_count), NEVER)

    def nothing_goes_on(self) -> Thresholds:
        """The thresholds with which the first stage answers every row."""
        return np.zeros((len(self.costs_ms) - 1, self.label_count))


@dataclass(frozen=True)
class Outcome:
    """A cascade's answers to some rows."""

    stages: npt.NDArray[np.int64]  # (N,): who answered
    labels: Predictions  # (N,)
    answers: StageAnswers

    def __len__(self) -> int:
        return len(self.stages)

    @cached_property
    def escalated(self) -> int:
        """Rows of which the first stage was not sure."""
        return int((self.stages > 0).sum())

    @cached_property
    def disagreements(self) -> int:
        """Rows with another label than the last stage's."""
        return int((self.labels != self.answers.labels[-1]).sum())

    @cached_property
    def wrong(self) -> int | None:
        """Rows with another label than their own; ``None`` where they have none."""
        return None if self.answers.truth is None else int((self.labels != self.answers.truth).sum())

    @cached_property
    def mean_ms(self) -> float:
        """Of a row, which costs what each stage costs that was asked."""
        return float(np.cumsum(self.answers.costs_ms)[self.stages].mean())

    def point(self) -> dict[str, float]:
        """The figures as a point of the manifest's curve."""
        rows = len(self)
        right = {} if self.wrong is None else {"accuracy": 1 - self.wrong / rows}
        agreement = 1 - self.disagreements / rows
        return {"escalated": self.escalated / rows, "agreement": agreement, **right, "mean_ms": self.mean_ms}

    def figures(self) -> dict[str, Any]:
        """The figures as the manifest's evaluation has them, with intervals of 95 %."""
        rows, counts = len(self), np.bincount(self.stages, minlength=len(self.answers.costs_ms))
        figures: dict[str, Any] = {"rows": rows, "agreement": interval(rows - self.disagreements, rows)}
        if self.wrong is not None:
            figures["accuracy"] = interval(rows - self.wrong, rows)
            figures["last_accuracy"] = float((self.answers.labels[-1] == self.answers.truth).mean())
        figures["escalated"] = interval(self.escalated, rows)
        figures["stages"] = [int(count) / rows for count in counts]
        figures["median_ms"] = list(self.answers.costs_ms)
        return figures


def route(answers: StageAnswers, thresholds: Thresholds | Sequence[Sequence[float]]) -> Outcome:
    """Asks stage by stage; one whose sureness reaches its label's threshold answers, and the last one always does."""
    rows = np.arange(len(answers))
    stages = np.full(len(answers), len(answers.costs_ms) - 1)
    for stage in reversed(range(len(answers.costs_ms) - 1)):
        needed = np.asarray(thresholds[stage])[answers.labels[stage]]
        stages[answers.sureness[stage] >= needed] = stage
    return Outcome(stages, answers.labels[stages, rows], answers)
