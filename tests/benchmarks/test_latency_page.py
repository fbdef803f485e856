"""The page about latency says what its JSON says."""

import json

from benchmarks.latency_table import PAGE, RESULTS, markdown
from benchmarks.serving.table import MARKERS, put_into


def test_the_latency_page_says_what_the_results_say() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert MARKERS.search(page)
    figures = json.loads(RESULTS.read_text(encoding="utf-8"))
    assert page == put_into(page, markdown(figures)), "run: python -m benchmarks.latency_table"
