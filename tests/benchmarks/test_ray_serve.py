"""Claims about the figures of Ray Serve beside our own workers."""

from benchmarks.harness.results import Results
from benchmarks.ray_serve import RAY, RUNNERS, WORKERS, sections


def test_a_ratio_is_taken_within_its_round() -> None:
    settings = {"callers": 32, "seconds": 4.0, "model": "tiny"}
    results = Results("ray", {"machine": "m", "commit": "c"}, settings)
    figures = {"p50_ms": 1.0, "p99_ms": 2.0, "cpu_ms": 3.0, "peak_mib": 4.0, "ready_s": 5.0, "errors": 1}
    for server, rates in {RAY: (100, 200, 50), WORKERS: (180, 300, 100), RUNNERS: (300, 400, 200)}.items():
        for number, rate in enumerate(rates):
            results.add("points", server=server, round=number, requests_per_s=rate, **figures)
    text = sections(results)["ray"]
    assert f"| {RAY} | 100 | **1.00** (1.00 to 1.00) | 1.0 / 2.0 | 3.00 | 4 | 5.0 |" in text
    assert f"| {WORKERS} | 180 | **1.80** (1.50 to 2.00) |" in text
    assert "9 errors" in text
