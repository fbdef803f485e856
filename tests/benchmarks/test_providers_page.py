"""The page about providers says what its JSON says."""

import json

from benchmarks.providers import BASELINE
from benchmarks.providers_table import AIM_AT, PAGE, RESULTS, STUDENT, markdown
from benchmarks.serving.table import MARKERS, put_into


def test_the_providers_page_says_what_the_results_say() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert MARKERS.search(page)
    figures = json.loads(RESULTS.read_text(encoding="utf-8"))
    assert page == put_into(page, markdown(figures)), "run: python -m benchmarks.providers_table"


def page_of(baseline_ms: dict[str, float]) -> str:
    about = {"command": "c", "commit": "c", "date": "d", "machine": "m", "cores": 1, "versions": {}}
    latency = [
        {"name": name, "workload": shape, "median_ms": 1.0 if name == STUDENT else baseline_ms.get(shape, 8.0)}
        for name in (BASELINE, STUDENT)
        for shape in AIM_AT
    ]
    return markdown({"about": about, "latency": latency, "answers": []})


def test_an_aim_that_was_missed_is_said_to_be() -> None:
    assert "is **missed at 1×64**: 8.0 at 1×16, 7.9 at 1×64" in page_of({"1×64": 7.9})
    assert "is **met**" in page_of({})
