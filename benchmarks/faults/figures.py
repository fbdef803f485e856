"""Percentiles, rates and growth of what was measured."""

import math
from collections.abc import Iterable, Sequence


def percentile(values: Iterable[float], share: float) -> float:
    """The smallest value that at least `share` of the values do not exceed; NaN when there are none."""
    ordered = sorted(values)
    if not ordered:
        return math.nan
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def median(values: Iterable[float]) -> float:
    """The middle value, the lower one of two; NaN when there are none."""
    return percentile(values, 0.5)


def growth(values: Sequence[float], warm_up: float = 0.25) -> float:
    """By what share the last tenth's median is over that of the first tenth after the warm-up; NaN below 10 values.

    `warm_up` is the share of the values at the start that is left out.
    """
    if len(values) < 10:
        return math.nan
    settled = values[int(len(values) * warm_up) :]
    tenth = max(1, len(settled) // 10)
    return median(settled[-tenth:]) / median(settled[:tenth]) - 1
