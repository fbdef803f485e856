"""Claims about the figures of several workers."""

from benchmarks.harness.results import Results
from benchmarks.workers import sections


def test_a_ratio_is_taken_within_its_round() -> None:
    results = Results("workers", {"machine": "m", "cores": 2, "commit": "c"}, {"callers": 32, "seconds": 4.0})
    for server, rates in {"one": (100, 200, 50), "two": (180, 300, 100)}.items():
        for number, rate in enumerate(rates):
            results.add("points", server=server, round=number, requests_per_s=rate, p99_ms=5.0, errors=0)
    text = sections(results)["workers"]
    assert "| one | 100 | 5.0 | **1.00** (1.00 to 1.00) | 0 |" in text
    assert "| two | 180 | 5.0 | **1.80** (1.50 to 2.00) | 0 |" in text
