"""Claims about how promises are judged."""

from __future__ import annotations

import pytest

from benchmarks.serving.results import Point, Results, Special
from benchmarks.serving.thresholds import Promise, promises


def rate(graph: str, contender: str, requests_per_s: float, p99_ms: float = 1.0, concurrency: int = 32) -> Point:
    return Point(1, graph, contender, "sentence", concurrency, requests_per_s, p99_ms=p99_ms)


def judged(results: Results) -> dict[str, tuple[float | None, str]]:
    return {row.claim: (row.measured, row.verdict) for row in promises(results)}


def test_a_run_without_figures_keeps_no_promise() -> None:
    rows = promises(Results({}))
    assert {row.verdict for row in rows} == {"not measured"}


def test_the_limit_is_the_one_measured_beside_that_concurrency() -> None:
    points = [rate("teacher", "ladabert", 70), rate("teacher", "limit", 100)]
    points += [rate("teacher", "ladabert", 70, concurrency=64), rate("teacher", "limit", 140, concurrency=64)]
    rows = judged(Results({}, points))
    assert rows["teacher, fp32: throughput over the in-process limit, concurrency 32"] == (0.7, "ok")
    assert rows["teacher, fp32: throughput over the in-process limit, concurrency 64"] == (0.5, "short")


def test_others_are_the_servers_of_the_same_file() -> None:
    points = [rate("teacher", "ladabert", 300, p99_ms=90), rate("teacher", "transformers", 10_000, p99_ms=1)]
    points += [rate("teacher", "fastapi", 150, p99_ms=300), rate("teacher", "litserve", 100, p99_ms=100)]
    points += [rate("student", "ladabert", 250_000)]
    rows = judged(Results({}, points))
    assert rows["teacher, fp32: throughput over the best other server, concurrency 32"] == (2, "ok")
    assert rows["teacher, fp32: p99 over the lowest of the others, concurrency 32"] == (0.9, "ok")
    assert rows["student here over transformers.pipeline on the teacher, concurrency 32"] == (25, "ok")


def test_our_service_on_openvino_is_judged_against_the_others_and_not_among_them() -> None:
    points = [rate("teacher", "ladabert", 300), rate("teacher", "fastapi", 200)]
    assert not any("OpenVINO" in claim for claim in judged(Results({}, points)))
    rows = judged(Results({}, [*points, rate("teacher", "ladabert-openvino", 500)]))
    assert rows["teacher, fp32, with OpenVINO: throughput over the best other server, concurrency 32"] == (2.5, "ok")
    assert rows["teacher, fp32: throughput over the best other server, concurrency 32"] == (1.5, "ok")


def test_fairness_is_a_ratio_of_two_p99() -> None:
    specials = [Special(1, "student", "short_alone_p99_ms", 10), Special(1, "student", "short_with_long_p99_ms", 31)]
    rows = judged(Results({}, [], specials))
    assert rows["student, int8: p99 of short texts with as many clients of long ones, over alone"] == (3.1, "short")


@pytest.mark.parametrize(
    ("promise", "wanted", "verdict"),
    [
        (Promise("a", 1.5, None, 1.5), "≥ 1.5", "ok"),
        (Promise("a", 1.5, None, 1.49), "≥ 1.5", "short"),
        (Promise("a", None, 150, 150, " µs"), "≤ 150 µs", "ok"),
        (Promise("a", None, 150, 151, " µs"), "≤ 150 µs", "short"),
        (Promise("a", None, 150, None), "≤ 150", "not measured"),
    ],
)
def test_a_threshold_itself_is_enough(promise: Promise, wanted: str, verdict: str) -> None:
    assert (promise.wanted, promise.verdict) == (wanted, verdict)
