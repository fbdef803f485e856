"""How far a share that was counted on some rows holds for others."""

from __future__ import annotations

import math

NORMAL_QUANTILE = 1.959964  # of 0.975, for intervals of 95 %
ROUNDING = 1e-9


def interval(count: int, rows: int) -> dict[str, float]:
    """``count / rows`` as ``value``, and its interval of 95 % from ``low`` to ``high`` (Wilson 1927)."""
    share, squared = count / rows, NORMAL_QUANTILE**2
    centre = (share + squared / (2 * rows)) / (1 + squared / rows)
    half = NORMAL_QUANTILE / (1 + squared / rows) * math.sqrt(share * (1 - share) / rows + squared / (4 * rows**2))
    return {"value": share, "low": min(share, max(0.0, centre - half)), "high": max(share, min(1.0, centre + half))}


def most_failures(rows: int, share: float, confidence: float) -> int:
    """The most failures among ``rows`` with which as many other rows meet ``share`` with this confidence.

    Two halves of a random division: were the other half to miss the target by one failure or more, then this half
    would have so few with a probability of at most ``1 - confidence`` (Fisher's exact test, one-sided). This is
    stricter than a bound of Clopper and Pearson on the share itself, since the other half scatters, too.

    Returns:
        -1 where not even 0 would do: there are too few rows.
    """
    allowed = math.floor(rows * (1 - share) + ROUNDING)  # in the other half
    if allowed >= rows:
        return rows
    low, high = -1, allowed
    while low < high:
        middle = (low + high + 1) // 2
        if _at_most(middle, middle + allowed + 1, rows) <= 1 - confidence:
            low = middle
        else:
            high = middle - 1
    return low


def _at_most(count: int, failures: int, rows: int) -> float:
    """The probability that at most ``count`` of ``failures`` fall into one half of ``2 * rows`` rows."""
    least = max(0, failures - rows)
    every = _log_choose(2 * rows, rows)
    return sum(
        math.exp(_log_choose(failures, here) + _log_choose(2 * rows - failures, rows - here) - every)
        for here in range(least, count + 1)
    )


def _log_choose(total: int, chosen: int) -> float:
    return math.lgamma(total + 1) - math.lgamma(chosen + 1) - math.lgamma(total - chosen + 1)
