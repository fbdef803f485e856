"""Claims about the figures of several workers."""

import json

from benchmarks.faults.table import with_table
from benchmarks.workers import BEGIN, PAGE, RESULTS, to_markdown


def test_a_ratio_is_taken_within_its_round() -> None:
    def points(*rates: float) -> list[dict[str, float]]:
        return [{"requests_per_s": rate, "p99_ms": 5.0, "errors": 0} for rate in rates]

    results = {"one": points(100, 200, 50), "two": points(180, 300, 100)}
    table = to_markdown(
        {"machine": "m", "cores": 2, "commit": "c", "callers": 32, "seconds": 4.0, "points": results},
    )
    assert "| one | 100 | 5.0 | **1.00** (1.00 to 1.00) | 0 |" in table
    assert "| two | 180 | 5.0 | **1.80** (1.50 to 2.00) | 0 |" in table


def test_the_page_has_the_table_of_the_committed_results_and_nothing_without_them() -> None:
    page = PAGE.read_text(encoding="utf-8")
    table = to_markdown(json.loads(RESULTS.read_text(encoding="utf-8"))) if RESULTS.exists() else ""
    assert page == with_table(page, table, BEGIN), "run: python -m benchmarks.workers --write"
