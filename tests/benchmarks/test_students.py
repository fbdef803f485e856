"""Claims about the tables of the bundled students."""

import pytest

from benchmarks.harness.results import Results
from benchmarks.students import calibrations_table, sections, students_table

MANIFEST = {
    "name": "small",
    "version": "new",
    "teacher": {"parameters": 22_000_000},
    "compression": {"reached_ratio": 10.0, "parameters": 5, "nonzero_parameters": 2},
    "files": {"model.int8.onnx": {"bytes": 3}},
}


def test_figures_of_another_version_are_refused() -> None:
    results = Results("students")
    results.add("http", model="small", version="old")
    with pytest.raises(ValueError, match="small: measured over HTTP at another version"):
        students_table([MANIFEST], results)


def test_without_answers_over_http_the_table_has_the_times_alone() -> None:
    results = Results("students", {"machine": "m"}, {"baseline": "teacher"})
    for batch, tokens in ((1, 16), (1, 64), (8, 32), (32, 16)):
        results.add("times", name="teacher", batch=batch, tokens=tokens, median_ms=100.0, times_baseline=1.0)
        results.add(
            "times", name="sst2-latency-x4.7 int8", batch=batch, tokens=tokens, median_ms=0.5, times_baseline=200.0
        )
    lines = sections(results)["students"].splitlines()
    assert lines[0] == "m."
    assert lines[4] == "| 1 text of 16 tokens, one thread | 100 ms | 0.50 ms (200.0×) |"
    assert len(lines) == 8


def test_what_an_older_manifest_does_not_say_is_a_dash() -> None:
    manifest = {
        "name": "old",
        "calibration": {"temperature": 1.0},
        "evaluation": {"files": {"model.int8.onnx": {"accuracy": 0.5}}},
    }
    assert calibrations_table([manifest]).splitlines()[-1] == "| `old` | 0 | 1.000 | – | – | 0.5000 | – |"
    manifest["evaluation"]["student_accuracy"] = 0.9  # type: ignore[index]
    assert calibrations_table([manifest]).splitlines()[-1].endswith("| 0.9000 |")
