"""The figures of one run: every round's, their medians, and ratios taken within a round."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Point:
    """One contender under one load in one round.

    The in-process limit has a rate alone; its concurrency is that of the servers measured beside it.
    """

    round: int
    graph: str
    contender: str
    load: str
    concurrency: int
    requests_per_s: float
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    short_p99_ms: float = 0.0  # of the texts of at most 16 tokens, where the load is mixed
    refused: int = 0  # told to come again later (429), which the clients did
    errors: int = 0
    cpu_ms: float = 0.0  # of the server's processes, per request
    client_cpu_ms: float = 0.0  # of the load generator, per request
    peak_mib: float = 0.0  # of the server's processes, since they started


@dataclass(frozen=True, slots=True)
class Special:
    """One of the measurements of our service alone."""

    round: int
    graph: str
    name: str
    value: float


@dataclass(slots=True)
class Results:
    """Everything a run found out; `about` says where, on what and with what."""

    about: dict[str, Any]
    points: list[Point] = field(default_factory=list)
    specials: list[Special] = field(default_factory=list)

    def save(self, path: Path) -> None:
        """Write the figures as JSON, one measurement a line."""
        path.parent.mkdir(parents=True, exist_ok=True)
        parts = [
            f'"about": {json.dumps(self.about, indent=2, ensure_ascii=False)}',
            f'"points": {_lines(asdict(point) for point in self.points)}',
            f'"specials": {_lines(asdict(special) for special in self.specials)}',
            f'"medians": {_lines(self._medians())}',
        ]
        path.write_text("{\n" + ",\n".join(parts) + "\n}\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Results:
        """Read what `save` wrote; the medians are computed anew."""
        data = json.loads(path.read_text(encoding="utf-8"))
        points = [Point(**point) for point in data["points"]]
        return cls(data["about"], points, [Special(**special) for special in data["specials"]])

    def _medians(self) -> Iterable[dict[str, Any]]:
        for key in dict.fromkeys((p.graph, p.contender, p.load, p.concurrency) for p in self.points):
            graph, contender, load, concurrency = key
            names = ("requests_per_s", "p50_ms", "p99_ms", "short_p99_ms", "cpu_ms", "client_cpu_ms")
            figures = {name: self.median(*key, name) for name in names}
            yield {"graph": graph, "contender": contender, "load": load, "concurrency": concurrency, **figures}
        for graph, name in dict.fromkeys((special.graph, special.name) for special in self.specials):
            yield {"graph": graph, "name": name, "value": self.special(graph, name)}

    def select(self, graph: str, contender: str, load: str, concurrency: int) -> list[Point]:
        """Return every round's point, in order."""
        wanted = (graph, contender, load, concurrency)
        return [p for p in self.points if (p.graph, p.contender, p.load, p.concurrency) == wanted]

    def median(self, graph: str, contender: str, load: str, concurrency: int, name: str) -> float | None:
        """Return the median of a figure over the rounds, or None where it was not measured."""
        return median([getattr(point, name) for point in self.select(graph, contender, load, concurrency)])

    def special(self, graph: str, name: str) -> float | None:
        """Return the median of a special measurement over the rounds."""
        return median([s.value for s in self.specials if (s.graph, s.name) == (graph, name)])

    def special_ratio(self, graph: str, over: str, under: str) -> float | None:
        """Return the median of the rounds' ratios of two special measurements."""
        values = {(s.name, s.round): s.value for s in self.specials if s.graph == graph}
        rounds = [number for name, number in values if name == over and values.get((under, number))]
        return median([values[over, number] / values[under, number] for number in rounds])

    def ratio(
        self, ours: Sequence[Point], others: Iterable[Point], name: str, best: Callable[..., float]
    ) -> float | None:
        """Return the median over the rounds of our figure over the best of the others' in the same round.

        Who answered nothing in a round has no figure there.
        """
        by_round: dict[int, list[float]] = {}
        for point in others:
            if point.requests_per_s:
                by_round.setdefault(point.round, []).append(getattr(point, name))
        return median([getattr(p, name) / best(by_round[p.round]) for p in ours if p.round in by_round])


def median(values: Sequence[float]) -> float | None:
    """Return the median, or None of nothing."""
    return statistics.median(values) if values else None


def percentile(values: Iterable[float], percent: float) -> float:
    """Return the smallest value that at least `percent` of all values do not exceed; 0 of nothing."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)] if ordered else 0.0


def _lines(rows: Iterable[dict[str, Any]]) -> str:
    return "[\n" + ",\n".join("  " + json.dumps(_rounded(row)) for row in rows) + "\n]"


def _rounded(row: dict[str, Any]) -> dict[str, Any]:
    return {name: round(value, 3) if isinstance(value, float) else value for name, value in row.items()}
