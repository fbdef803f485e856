"""Claims about the comparison of plans with runs."""

import json
from argparse import Namespace
from pathlib import Path

import pytest

from benchmarks.plan import failures, measure, sections
from ladabert_compress.artefact.reading import read_manifest
from ladabert_compress.errors import OptionError
from tests.compression.conftest import REPOSITORY

MODEL = REPOSITORY / "models" / "sst2-x5"


def options(
    folder: Path, off: dict[str, float], *, machine: str | None = None, training_s: float | None = 1000.0
) -> Namespace:
    """A plan of a bundled model that is off by these factors, and a run of 1,000 seconds."""
    manifest = read_manifest(MODEL)
    file = manifest["default_file"]
    (ms,) = (
        r["median_ms"] for r in manifest["latency"]["table"] if (r["file"], r["batch"], r["tokens"]) == (file, 1, 64)
    )
    student = {
        "recipe": "best-x5",
        "stored_bytes": manifest["files"][file]["bytes"] * off.get("size", 1),
        "median_ms": ms * off.get("ms", 1),
        "training_s": 1000.0 * off.get("time", 1),
    }
    plan = {"machine": machine or manifest["latency"]["machine"], "students": [student]}
    (folder / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
    (folder / "history.json").write_text(json.dumps({"training_s": training_s}), encoding="utf-8")
    return Namespace(run=[[str(folder / "plan.json"), "best-x5", str(MODEL), str(folder)]])


@pytest.mark.parametrize(
    ("off", "broken"),
    [
        ({}, []),
        ({"size": 1.04, "ms": 0.85, "time": 1.25}, []),
        ({"size": 1.08}, ["sst2-x5: bytes +8.0 %"]),
        ({"ms": 0.7, "time": 1.4}, ["sst2-x5: milliseconds -30.0 %", "sst2-x5: training seconds +40.0 %"]),
    ],
)
def test_a_plan_that_is_too_far_off_is_named(off: dict[str, float], broken: list[str], tmp_path: Path) -> None:
    assert failures(measure(options(tmp_path, off))) == broken


def test_times_of_another_machine_or_of_a_resumed_run_are_not_compared(tmp_path: Path) -> None:
    elsewhere = measure(options(tmp_path, {"ms": 9, "time": 9}, machine="another"))
    resumed = measure(options(tmp_path, {"time": 9}, training_s=None))
    assert failures(elsewhere) == failures(resumed) == []
    assert sections(elsewhere)["plan"].count("–") == 4
    assert sections(resumed)["plan"].count("–") == 2


def test_a_recipe_that_was_not_planned_is_refused(tmp_path: Path) -> None:
    asked = options(tmp_path, {})
    asked.run[0][1] = "best-x10"
    with pytest.raises(OptionError, match="has no recipe best-x10; it has best-x5"):
        measure(asked)
