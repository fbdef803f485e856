"""Claims about how many cores a rate needs: from measured points, never beyond them, and with what is kept free."""

import pytest
from hypothesis import given
from hypothesis import strategies as some

from benchmarks.harness.results import FOLDER, Results
from benchmarks.serving.capacity import LIMITS_MS, USED, cores_for, points_of, rate_within, sections

POINTS = [(100.0, 5.0), (300.0, 20.0), (400.0, 80.0), (390.0, 200.0)]


@pytest.mark.parametrize(
    ("limit_ms", "rate"), [(4.0, None), (5.0, 100.0), (20.0, 300.0), (50.0, 350.0), (100.0, 400.0), (1000.0, 400.0)]
)
def test_a_rate_lies_on_the_line_between_two_points_and_never_above_the_highest(
    limit_ms: float, rate: float | None
) -> None:
    assert rate_within(POINTS, limit_ms) == rate


@given(some.floats(5, 1000), some.floats(0, 1000))
def test_a_looser_limit_never_lowers_the_rate(limit_ms: float, more_ms: float) -> None:
    tight, loose = rate_within(POINTS, limit_ms), rate_within(POINTS, limit_ms + more_ms)
    assert tight is not None
    assert loose is not None
    assert loose >= tight


def test_cores_come_in_whole_servers_and_leave_some_free() -> None:
    assert cores_for(100 * USED, 100, cores=2) == 2
    assert cores_for(100 * USED + 1, 100, cores=2) == 4


@pytest.mark.parametrize("file", ["serving.json", "serving-without-vnni.json"])
def test_the_table_has_a_row_for_each_graph_and_limit(file: str) -> None:
    results = Results.load(FOLDER / file)
    graphs = [graph for graph in ("teacher", "student") if points_of(results, graph)]
    (text,) = sections(results).values()
    assert text.count("\n| ") == 1 + len(graphs) * len(LIMITS_MS)  # the head's rule is no row: it begins with |-
