"""Claims about counted shares: intervals, and how few failures promise a share on other rows."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ladabert_compress.measure.intervals import interval, most_failures


def binomial_tail(count: int, rows: int, share: float) -> float:
    """The probability of at most ``count`` failures of ``rows``, each with probability ``share``."""
    return sum(math.comb(rows, here) * share**here * (1 - share) ** (rows - here) for here in range(count + 1))


def test_an_interval_is_wilsons() -> None:
    assert interval(95, 100) == pytest.approx({"value": 0.95, "low": 0.8882, "high": 0.9785}, abs=1e-4)
    assert interval(0, 10)["low"] == 0
    assert interval(10, 10)["high"] == 1


@given(rows=st.integers(1, 400), share=st.sampled_from([0.5, 0.8, 0.9, 0.95, 0.99]))
def test_so_few_failures_also_satisfy_the_bound_of_clopper_and_pearson(rows: int, share: float) -> None:
    found = most_failures(rows, share, 0.95)
    assert -1 <= found < rows
    if found >= 0:
        assert binomial_tail(found, rows, 1 - share) <= 0.05


@given(rows=st.integers(20, 400), share=st.floats(0.5, 0.99))
def test_more_confidence_or_a_higher_share_allow_no_more_failures(rows: int, share: float) -> None:
    found = most_failures(rows, share, 0.9)
    assert most_failures(rows, share, 0.95) <= found
    assert most_failures(rows, share + 0.005, 0.9) <= found


def test_too_few_rows_promise_nothing() -> None:
    assert most_failures(300, 0.99, 0.95) == -1
    assert most_failures(436, 0.99, 0.95) == 0


def test_a_share_that_any_row_meets_allows_every_failure() -> None:
    assert most_failures(50, 0.0, 0.95) == 50


def test_the_other_half_meets_the_share_as_often_as_promised_where_the_bound_is_just_met() -> None:
    """Rows in random order fail in some places; a threshold stops before one failure too many."""
    generator, rows, share = np.random.default_rng(0), 500, 0.97
    allowed = most_failures(rows, share, 0.95)
    met = 0
    for _ in range(1000):
        fails = np.sort(generator.random(2 * rows)) < generator.random(2 * rows) ** 3  # sooner, the less sure
        here = np.isin(np.arange(2 * rows), generator.permutation(2 * rows)[:rows])
        failed_here = np.cumsum((fails & here)[::-1])
        kept = int(np.searchsorted(failed_here, allowed, side="right"))
        met += int((fails & ~here)[::-1][:kept].sum()) <= rows * (1 - share)
    assert met / 1000 >= 0.94
