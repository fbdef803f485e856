"""Claims about the pages that show the figures."""

from __future__ import annotations

import pytest

from benchmarks.serving.results import Results
from benchmarks.serving.table import MARKERS, markdown, put_into
from tests.test_docs import REPOSITORY


@pytest.mark.parametrize(
    ("results", "page"), [("serving", "performance"), ("serving-without-vnni", "performance-without-vnni")]
)
def test_a_page_says_what_the_results_say(results: str, page: str) -> None:
    written = (REPOSITORY / "docs" / f"{page}.md").read_text(encoding="utf-8")
    assert MARKERS.search(written)
    file = f"benchmarks/results/{results}.json"
    again = f"run: python -m benchmarks.serving.table {file} --page docs/{page}.md"
    assert written == put_into(written, markdown(Results.load(REPOSITORY / file))), again


def test_figures_replace_what_stood_between_the_markers() -> None:
    page = "before\n<!-- figures: how -->\nold\n<!-- end -->\nafter\n"
    assert put_into(page, "new\n") == "before\n<!-- figures: how -->\nnew\n<!-- end -->\nafter\n"
