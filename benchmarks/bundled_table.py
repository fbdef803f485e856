"""What the manifests of models/ say, as tables of docs/bundled-models.md and docs/compression.md.

python -m benchmarks.bundled_table
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.serving.table import put_into

REPOSITORY = Path(__file__).parents[1]
STUDENTS_PAGE = REPOSITORY / "docs" / "bundled-models.md"
CALIBRATION_PAGE = REPOSITORY / "docs" / "compression.md"


def manifests() -> list[dict[str, Any]]:
    """Of every bundled student, by name."""
    files = sorted((REPOSITORY / "models").glob("*/manifest.json"))
    return [json.loads(file.read_text(encoding="utf-8")) for file in files]


def students(found: list[dict[str, Any]]) -> str:
    """Sizes, and what the default graph answers on dev."""
    return _table(
        "student | asked for, reached | non-zero, of all parameters | graph on disk | dev: rows | teacher | student "
        "| share of the teacher's accuracy | the same label",
        map(_student, found),
    )


def calibrations(found: list[dict[str, Any]]) -> str:
    """The temperature with what it mends, and int8 beside the PyTorch student."""
    return _table(
        "student | rows of the fit | temperature | calibration error on dev without it | with it | int8 on dev "
        "| PyTorch student",
        map(_calibration, found),
    )


def pages() -> dict[Path, str]:
    """Each page as it should be."""
    found = manifests()
    tables = {STUDENTS_PAGE: students(found), CALIBRATION_PAGE: calibrations(found)}
    return {page: put_into(page.read_text(encoding="utf-8"), table) for page, table in tables.items()}


def _table(head: str, lines: Iterator[list[str]]) -> str:
    rows = [f"| {head} |", "|" + "---|" * (head.count("|") + 1), *(f"| {' | '.join(line)} |" for line in lines)]
    return "\n".join(rows) + "\n"


def _student(manifest: dict[str, Any]) -> list[str]:
    made, figures = manifest["compression"], manifest["evaluation"]
    scores, teacher = figures["files"][manifest["default_file"]], figures["teacher_accuracy"]
    return [
        f"`{manifest['name']}`",
        f"×{made['requested_ratio']:g}, ×{made['reached_ratio']:.3f}",
        f"{made['nonzero_parameters'] / 1e6:.2f} of {made['parameters'] / 1e6:.2f} M",
        f"{made['stored_bytes'] / 1e6:.2f} MB, {manifest['files'][manifest['default_file']]['precision']}",
        f"{figures['rows']:,}",
        f"{teacher:.4f}",
        f"{scores['accuracy']:.4f}",
        f"{100 * scores['accuracy'] / teacher:.1f} %",
        f"{100 * scores['agreement']:.1f} %",
    ]


def _calibration(manifest: dict[str, Any]) -> list[str]:
    fitted, figures = manifest["calibration"], manifest["evaluation"]
    return [
        f"`{manifest['name']}`",
        f"{fitted.get('rows', 0):,}",
        f"{fitted['temperature']:.3f}",
        _figure(fitted.get("ece_before")),
        _figure(fitted.get("ece_after")),
        _figure(figures["files"].get("model.int8.onnx", {}).get("accuracy")),
        _figure(figures.get("student_accuracy")),
    ]


def _figure(value: float | None) -> str:
    """Four digits, or a dash where an older manifest does not say."""
    return "–" if value is None else f"{value:.4f}"


def main() -> None:
    for page, text in pages().items():
        page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
