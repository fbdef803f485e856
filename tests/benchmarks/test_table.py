"""Claims about the page that shows the figures."""

from __future__ import annotations

from benchmarks.serving.results import Results
from benchmarks.serving.table import MARKERS, markdown, put_into
from tests.test_docs import REPOSITORY

PAGE = REPOSITORY / "docs" / "performance.md"
RESULTS = REPOSITORY / "benchmarks" / "results" / "serving.json"


def test_the_page_says_what_the_results_say() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert MARKERS.search(page)
    again = "run: python -m benchmarks.serving.table benchmarks/results/serving.json --page docs/performance.md"
    assert page == put_into(page, markdown(Results.load(RESULTS))), again


def test_figures_replace_what_stood_between_the_markers() -> None:
    page = "before\n<!-- figures: how -->\nold\n<!-- end -->\nafter\n"
    assert put_into(page, "new\n") == "before\n<!-- figures: how -->\nnew\n<!-- end -->\nafter\n"
