"""Claims about the figures of a shadow."""

from benchmarks.harness.results import Results
from benchmarks.shadow import failures, sections


def measured(*p99s: tuple[float, float]) -> Results:
    about = {"machine": "m", "command": "c", "commit": "c", "date": "d"}
    results = Results("shadow", about, {"seconds": 1.0, "model": "m", "shadow": "s", "rate": 0.1})
    for number, pair in enumerate(p99s):
        for server, p99 in zip(("without", "with"), pair, strict=True):
            figures = {"offered_per_s": 100.0, "p50_ms": 1.0, "p99_ms": p99, "compared": 3, "dropped": 1, "errors": 0}
            results.add("points", server=server, round=number, **figures)
    return results


def test_a_ratio_is_taken_within_its_round() -> None:
    text = sections(measured((10, 10), (20, 21), (40, 30)))["shadow"]
    assert "**1.00** (0.75 to 1.05 by round)" in text
    assert "| with a shadow | 100.0 | 1.0 | 21.0 | 9 | 3 |" in text


def test_a_promise_that_is_not_kept_is_named() -> None:
    assert failures(measured((10, 10.2))) == []
    assert failures(measured((10, 11))) == ["p99 with a shadow is 1.10 times that without"]
