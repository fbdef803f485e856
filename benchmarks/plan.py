"""How near `ladabert-compress plan` comes to what real runs make: bytes, milliseconds and the time of the training.

python -m benchmarks plan --run plan.json best-x5 models/mine runs/mine [--run …] [--write]

plan.json is what `plan --json` wrote before the run, on the same machine and rows. Exit code 1 where bytes are more
than 5 % off, milliseconds more than 20 % or the training's time more than 30 %.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.harness.pages import MISSING, figure, table
from benchmarks.harness.results import Results, Row, origin
from ladabert_compress.artefact.reading import read_manifest
from ladabert_compress.errors import OptionError

ALLOWED = {"bytes": 0.05, "milliseconds": 0.20, "training seconds": 0.30}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what the command is told."""
    parser.add_argument(
        "--run",
        nargs=4,
        action="append",
        required=True,
        metavar=("PLAN", "RECIPE", "ARTEFACT", "RUN"),
        help="plan.json, the recipe's name in it, and the folders of the artefact and of its run; may be repeated",
    )


def measure(options: argparse.Namespace) -> Results:
    """Compare every run with its plan; nothing is measured anew."""
    results = Results("plan", origin())
    for plan, recipe, artefact, run in options.run:
        planned, made = _planned(Path(plan), recipe), _made(Path(artefact), Path(run))
        if planned.pop("machine") != made.pop("machine"):
            made["milliseconds"] = made["training seconds"] = None
        for name, value in made.items():
            results.add(
                "runs", model=Path(artefact).name, recipe=recipe, figure=name, planned=planned[name], made=value
            )
    return results


def _planned(file: Path, recipe: str) -> dict[str, Any]:
    """What the plan says of a recipe.

    Raises:
        OptionError: it does not speak of it.
    """
    plan = json.loads(file.read_text(encoding="utf-8"))
    students = {student["recipe"]: student for student in plan["students"]}
    if recipe not in students:
        raise OptionError(f"{file}: has no recipe {recipe}; it has {', '.join(students)}")
    student = students[recipe]
    return {
        "machine": plan["machine"],
        "bytes": student["stored_bytes"],
        "milliseconds": student["median_ms"],
        "training seconds": student["training_s"],
    }


def _made(artefact: Path, run: Path) -> dict[str, Any]:
    """What the manifest and the history say of the run; of a resumed run nobody knows the time."""
    manifest = read_manifest(artefact)
    history = json.loads((run / "history.json").read_text(encoding="utf-8"))
    return {
        "machine": manifest["latency"]["machine"],
        "bytes": manifest["files"][manifest["default_file"]]["bytes"],
        "milliseconds": _one_text_ms(manifest),
        "training seconds": history.get("training_s"),
    }


def _one_text_ms(manifest: Mapping[str, Any]) -> float | None:
    """The median of one text of 64 tokens, which is what a plan times."""
    for row in manifest["latency"]["table"]:
        if (row["file"], row["batch"], row["tokens"]) == (manifest["default_file"], 1, 64):
            return float(row["median_ms"])
    return None


def sections(results: Results) -> dict[str, str]:
    """Return what was planned beside what was made."""
    rows = [
        (row["model"], row["recipe"], row["figure"], figure(row["planned"]), figure(row["made"]), _difference(row))
        for row in results.rows("runs")
    ]
    return {"plan": table(["model", "recipe", "", "planned", "made", "planned over made"], rows)}


def _off(row: Row) -> float | None:
    return None if row["planned"] is None or row["made"] is None else row["planned"] / row["made"] - 1


def _difference(row: Row) -> str:
    off = _off(row)
    return MISSING if off is None else f"{100 * off:+.1f} %"


def failures(results: Results) -> list[str]:
    """Return the figures that a plan missed by more than is allowed."""
    return [
        f"{row['model']}: {row['figure']} {_difference(row)}"
        for row in results.rows("runs")
        if (off := _off(row)) is not None and abs(off) > ALLOWED[row["figure"]]
    ]
