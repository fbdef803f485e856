"""Claims about percentiles, growth, turns and times."""

import itertools
import math

import pytest

from benchmarks.harness.statistics import growth, in_turn, milliseconds, percentile, turns


@pytest.mark.parametrize(("percent", "expected"), [(50, 50), (99, 99), (99.5, 100), (100, 100), (0, 1)])
def test_a_percentile_is_a_value_that_was_measured(percent: float, expected: float) -> None:
    assert percentile(reversed(range(1, 101)), percent) == expected


def test_nothing_has_no_percentile_and_one_value_has_every() -> None:
    assert math.isnan(percentile([], 99))
    assert percentile([5.0], 1) == percentile([5.0], 99) == 5


def test_growth_leaves_the_warm_up_out() -> None:
    warm_up = [1.0] * 25
    assert growth([*warm_up, *[100.0] * 75]) == 0
    assert growth([*warm_up, *[100.0] * 50, *[103.0] * 25]) == pytest.approx(0.03)
    assert math.isnan(growth([1.0] * 9))


def test_everybody_has_a_turn_in_every_round_and_nobody_is_always_the_first() -> None:
    played = list(turns(3, ["a", "b", "c"]))
    rounds = [[item for _, item in group] for _, group in itertools.groupby(played, key=lambda turn: turn[0])]
    assert rounds == [["a", "b", "c"], ["b", "c", "a"], ["c", "a", "b"]]


def test_two_alternate_who_begins() -> None:
    assert [in_turn(["a", "b"], number)[0] for number in range(4)] == ["a", "b", "a", "b"]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.00234, "2.3 ms"), (0.1804, "180 ms"), (0.9999, "1.00 s"), (12.3, "12.30 s")]
)
def test_times_are_written_for_a_reader(seconds: float, text: str) -> None:
    assert milliseconds(seconds) == text
