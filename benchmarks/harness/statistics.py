"""Percentiles, growth, turns, and times as a reader wants them."""

import math
import statistics
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

import numpy as np

Item = TypeVar("Item")


def percentile(values: Iterable[float], percent: float) -> float:
    """Return the smallest value that at least `percent` of the values do not exceed; NaN of nothing."""
    found = np.fromiter(values, float)
    return float(np.percentile(found, percent, method="inverted_cdf")) if found.size else math.nan


def growth(values: Sequence[float], warm_up: float = 0.25) -> float:
    """Return by what share the last tenth's median is over that of the first tenth after the warm-up.

    `warm_up` is the share of the values at the start that is left out. NaN below 10 values.
    """
    if len(values) < 10:
        return math.nan
    settled = values[int(len(values) * warm_up) :]
    tenth = max(1, len(settled) // 10)
    return statistics.median(settled[-tenth:]) / statistics.median(settled[:tenth]) - 1


def turns(rounds: int, items: Sequence[Item]) -> Iterator[tuple[int, Item]]:
    """Yield each round's number, from 0, with every item in that round's order."""
    for number in range(rounds):
        for item in in_turn(items, number):
            yield number, item


def in_turn(items: Sequence[Item], number: int) -> list[Item]:
    """Return a round's order: it begins one item further than the round before.

    A machine's speed drifts: what is compared has to take turns, and nobody may always be the first.
    """
    first = number % len(items)
    return [*items[first:], *items[:first]]


def milliseconds(seconds: float) -> str:
    """Return seconds as a reader wants them: `2.5 ms`, `180 ms`, `1.50 s`."""
    if abs(seconds) >= 0.9995:
        return f"{seconds:.2f} s"
    return f"{seconds * 1000:.1f} ms" if abs(seconds) < 0.01 else f"{seconds * 1000:.0f} ms"
