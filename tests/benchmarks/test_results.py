"""Claims about the statistics, on figures made up here."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.serving.results import Point, Results, Special, median, percentile


def point(number: int, contender: str, rate: float) -> Point:
    return Point(number, "teacher", contender, "sentence", 32, rate, p50_ms=1.23456)


@pytest.mark.parametrize(("percent", "expected"), [(50, 50), (99, 99), (99.5, 100), (100, 100), (0, 1)])
def test_a_percentile_is_a_value_that_was_measured(percent: float, expected: float) -> None:
    assert percentile(reversed(range(1, 101)), percent) == expected


def test_nothing_has_no_median() -> None:
    assert median([]) is None
    assert percentile([], 99) == 0


def test_ratios_are_taken_within_a_round_against_the_best() -> None:
    ours = [point(1, "ours", 100), point(2, "ours", 50), point(3, "ours", 80)]
    others = [point(1, "a", 50), point(1, "b", 40), point(2, "a", 20), point(2, "b", 25), point(3, "a", 20)]
    ratio = Results({}).ratio(ours, others, "requests_per_s", max)
    assert ratio == 2  # of 2, 2 and 4; the machine was half as fast in round 2, and the ratio does not see it


def test_who_answered_nothing_is_no_one_to_compare_with() -> None:
    silent = point(1, "a", 0)
    assert Results({}).ratio([point(1, "ours", 100)], [silent], "p50_ms", min) is None
    assert Results({}).ratio([point(1, "ours", 100)], [silent, point(1, "b", 50)], "requests_per_s", max) == 2


def test_a_special_ratio_leaves_out_a_round_that_lacks_a_part() -> None:
    specials = [Special(1, "teacher", "a", 6), Special(1, "teacher", "b", 2), Special(2, "teacher", "a", 100)]
    results = Results({}, [], specials)
    assert results.special_ratio("teacher", "a", "b") == 3
    assert results.special_ratio("student", "a", "b") is None


def test_what_is_saved_is_what_is_loaded(tmp_path: Path) -> None:
    results = Results({"commit": "abc"}, [point(1, "ours", 100)], [Special(1, "teacher", "gap_ms", 0.25)])
    results.save(tmp_path / "deep" / "results.json")
    loaded = Results.load(tmp_path / "deep" / "results.json")
    assert loaded.about == results.about
    assert loaded.specials == results.specials
    assert loaded.points[0].p50_ms == 1.235
    assert loaded.median("teacher", "ours", "sentence", 32, "requests_per_s") == 100
