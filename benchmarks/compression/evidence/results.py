"""The figures of all runs that are there: read from the work folder, kept as one JSON."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.compression.evidence.contenders import OWN_RATE


@dataclass(frozen=True)
class Outcome:
    """What one run came to; ``losses`` are running means over the last steps, each on rows not seen before."""

    contender: str
    ratio: float
    seed: int
    steps: int
    learning_rate: float
    batch_size: int
    accuracy: float
    parameters: int
    nonzero_parameters: int
    full_size_from_step: int  # the first step at which nothing is left to be cut
    cpu_seconds: float
    losses: dict[str, float]
    curve: list[tuple[int, float]]  # step and accuracy on dev

    @classmethod
    def of(cls, run: dict[str, Any]) -> Outcome:
        """The outcome in a run's JSON."""
        recipe, last = run["recipe"], run["evaluations"][-1]
        return cls(
            run["contender"],
            recipe["budget"]["ratio"],
            recipe["training"]["seed"],
            run["steps"],
            recipe["training"]["learning_rate"],
            recipe["training"]["batch_size"],
            run["accuracy"],
            run["parameters"],
            run["nonzero_parameters"],
            run["full_size_from_step"],
            run["cpu_seconds"],
            {name: value for name, value in last.items() if name not in ("step", "accuracy")},
            [(entry["step"], entry["accuracy"]) for entry in run["evaluations"]],
        )


@dataclass(frozen=True)
class Cut:
    """The terms of the distillation loss right after a student was cut to its ratio at once."""

    title: str
    losses: dict[str, float]


@dataclass
class Results:
    """Everything that was found; ``about`` says where, on what and with what."""

    about: dict[str, Any]
    outcomes: list[Outcome] = field(default_factory=list)
    cuts: list[Cut] = field(default_factory=list)

    @classmethod
    def load(cls, path: Path) -> Results:
        """Reads what :meth:`save` wrote."""
        data = json.loads(path.read_text(encoding="utf-8"))
        for outcome in data["outcomes"]:
            outcome["curve"] = [(step, right) for step, right in outcome["curve"]]
        outcomes = [Outcome(**outcome) for outcome in data["outcomes"]]
        return cls(data["about"], outcomes, [Cut(**cut) for cut in data["cuts"]])

    def save(self, path: Path) -> None:
        """Writes the figures, one run a line."""
        path.parent.mkdir(parents=True, exist_ok=True)
        parts = [
            f'"about": {json.dumps(self.about, indent=2, ensure_ascii=False)}',
            f'"outcomes": {_lines(asdict(outcome) for outcome in self.outcomes)}',
            f'"cuts": {_lines(asdict(cut) for cut in self.cuts)}',
        ]
        path.write_text("{\n" + ",\n".join(parts) + "\n}\n", encoding="utf-8")

    def of(self, contender: str, ratio: float) -> list[Outcome]:
        """The contender's runs at a ratio, by seed."""
        found = [outcome for outcome in self.outcomes if (outcome.contender, outcome.ratio) == (contender, ratio)]
        return sorted(found, key=lambda outcome: outcome.seed)

    def best(self, contender: str, ratio: float) -> list[Outcome]:
        """The contender's runs at the better of its two learning rates, by the mean over the seeds."""
        both = self.of(contender, ratio), self.of(contender + OWN_RATE, ratio)
        return max(both, key=lambda runs: mean(run.accuracy for run in runs) or 0.0)

    def margin(self, contender: str, other: str, ratio: float) -> float | None:
        """The mean of the first one's accuracy less the other's best, over the seeds that both have."""
        others = {outcome.seed: outcome.accuracy for outcome in self.best(other, ratio)}
        return mean(o.accuracy - others[o.seed] for o in self.of(contender, ratio) if o.seed in others)

    def curve(self, contender: str, ratio: float) -> list[tuple[int, float]]:
        """Step and accuracy, the mean over the seeds."""
        by_step: dict[int, list[float]] = {}
        for outcome in self.of(contender, ratio):
            for step, right in outcome.curve:
                by_step.setdefault(step, []).append(right)
        return [(step, statistics.fmean(values)) for step, values in sorted(by_step.items())]


def mean(values: Iterable[float]) -> float | None:
    """The mean, or ``None`` of nothing."""
    present = list(values)
    return statistics.fmean(present) if present else None


def _lines(rows: Iterable[dict[str, Any]]) -> str:
    return "[\n" + ",\n".join("  " + json.dumps(_rounded(row), ensure_ascii=False) for row in rows) + "\n]"


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 5)
    if isinstance(value, dict):
        return {name: _rounded(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(entry) for entry in value]
    return value
