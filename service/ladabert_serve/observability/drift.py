"""How far a model's last answers are from those on the rows that it was evaluated on; needs no labels.

Each worker counts its answers in two halves of a window, in turn: when one is full, the older one begins again at zero.
A scrape adds up the halves of all workers.
"""

import bisect
import hashlib
import json
import math
import threading
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

from ladabert_serve.observability.tallies import Key, Tallies

LIVE = "live"  # a row for each model, version and reference: how many answers were counted, then the two halves
LABEL_GROUPS = 50  # the last one holds every label that is rarer than the others
SCORE_BINS = 20  # as in the manifest's schema, which also has the bounds of the lengths
LENGTH_BOUNDS = tuple(2**power for power in range(2, 17))
LEAST_ANSWERS = 200  # in all workers; distances of fewer are mostly chance and not told


class Reference:
    """What the manifest says of the evaluation's rows, in groups of which there are never too many."""

    def __init__(self, distributions: Mapping[str, Sequence[Any]]) -> None:
        counts = distributions["labels"]
        common = sorted(range(len(counts)), key=lambda label: -counts[label])[: LABEL_GROUPS - 1]
        groups = min(len(counts), LABEL_GROUPS)
        self._group = [groups - 1] * len(counts)
        for group, label in enumerate(common):
            self._group[label] = group
        labels = [0] * groups
        for label, count in enumerate(counts):
            labels[self._group[label]] += count
        self.counts = {"labels": labels, "scores": distributions["scores"], "lengths": distributions["lengths"]}
        self.width = sum(map(len, self.counts.values()))
        # Scores of a regression have bounds of their own; others lie between 0 and 1.
        self._score_bounds = distributions.get("score_bounds")
        self.digest = hashlib.sha256(json.dumps([counts, self.counts, self._score_bounds]).encode()).hexdigest()[:12]

    def places(self, label: int, score: float, length: int) -> tuple[int, int, int]:
        """Return where in a half an answer is counted: for its label, its score and its length in tokens."""
        labels = len(self.counts["labels"])
        if self._score_bounds is None:
            score_bin = min(max(math.ceil(score * SCORE_BINS) - 1, 0), SCORE_BINS - 1)
        else:
            score_bin = bisect.bisect_left(self._score_bounds, score)
        return (
            self._group[label],
            labels + score_bin,
            labels + SCORE_BINS + bisect.bisect_left(LENGTH_BOUNDS, length),
        )

    def distances(self, rows: Iterable[Sequence[float]]) -> "Drift":
        """Return how far the answers that these workers counted are from the reference."""
        halves = [row[begin : begin + self.width] for row in rows for begin in (1, 1 + self.width)]
        live = [sum(column) for column in zip(*halves, strict=True)]
        parts: dict[str, list[float]] = {}
        begin = 0
        for name, counts in self.counts.items():
            parts[name] = live[begin : begin + len(counts)]
            begin += len(counts)
        answers = sum(parts["labels"])
        enough = answers >= LEAST_ANSWERS
        psi = {
            (name, "psi"): population_stability_index(counts, parts[name]) if enough else 0.0
            for name, counts in self.counts.items()
        }
        ks = kolmogorov_smirnov(self.counts["scores"], parts["scores"]) if enough else 0.0
        return Drift(answers, {**psi, ("scores", "ks"): ks})


class Drift(NamedTuple):
    """The answers in the window, and the distance of each of their properties: by `psi` or `ks`."""

    answers: float
    distances: dict[tuple[str, str], float]


class LiveWindow:
    """One worker's last answers of one model: at least half of the window, at most all of it."""

    def __init__(self, tallies: Tallies, key: Key, reference: Reference, window: int) -> None:
        self._reference = reference
        self._numbers = tallies.numbers
        self._first = tallies.row(key, 1 + 2 * reference.width)
        self._half = max(1, window // 2)
        self._lock = threading.Lock()

    def observe(self, label: int, score: float, length: int) -> None:
        """Count an answer: the place of its label among the logits, the label's score as served, and its tokens."""
        places = self._reference.places(label, score, length)
        width = self._reference.width
        numbers = self._numbers
        with self._lock:
            half, position = divmod(int(numbers[self._first]), self._half)
            begin = self._first + 1 + (half % 2) * width
            if position == 0:
                for index in range(begin, begin + width):
                    numbers[index] = 0.0
            for place in places:
                numbers[begin + place] += 1
            numbers[self._first] += 1


def population_stability_index(expected: Sequence[float], found: Sequence[float]) -> float:
    """Return the sum over bins of the difference of shares times that of their logarithms, 0 for equal shares.

    Half an answer is added to each bin, so that an empty one is no infinite distance.
    """
    before, after = _smoothed_shares(expected), _smoothed_shares(found)
    return sum((new - old) * math.log(new / old) for old, new in zip(before, after, strict=True))


def kolmogorov_smirnov(expected: Sequence[float], found: Sequence[float]) -> float:
    """Return the largest difference of the two cumulative shares, from 0 to 1; 0 where one of them is empty."""
    totals = sum(expected), sum(found)
    if not all(totals):
        return 0.0
    cumulative = zip(accumulate(expected), accumulate(found), strict=True)
    return max(abs(before / totals[0] - after / totals[1]) for before, after in cumulative)


def _smoothed_shares(counts: Sequence[float]) -> list[float]:
    total = sum(counts) + len(counts) / 2
    return [(count + 0.5) / total for count in counts]
