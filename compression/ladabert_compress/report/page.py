"""``ladabert-compress report``: one self-contained page about runs and artefacts."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from ladabert_compress.data.texts import LabelledTexts
from ladabert_compress.errors import OptionError
from ladabert_compress.files import write_text
from ladabert_compress.report.plots import Curve, Point, plot_accuracies, plot_losses, plot_points, plot_reliability
from ladabert_compress.report.students import (
    Latency,
    Measured,
    Subject,
    check_same_teacher,
    compare_latency,
    measure,
    read_subjects,
)
from ladabert_compress.student.saved import SavedMatrix
from ladabert_compress.teacher.folder import Teacher, load_teacher
from ladabert_compress.teacher.source import TeacherSource

TEMPLATE = Path(__file__).with_name("page.html")
LAYER = re.compile(r"bert\.encoder\.layer\.(\d+)\.(.+)")
# In the order in which a token meets them.
PARTS = {
    "attention.self.query": "query",
    "attention.self.key": "key",
    "attention.self.value": "value",
    "attention.output.dense": "attention output",
    "intermediate.dense": "feed-forward in",
    "output.dense": "feed-forward out",
}


def write_report(
    folders: Sequence[Path],
    out: Path,
    *,
    texts: LabelledTexts | None = None,
    teacher_folder: TeacherSource | Path | None = None,
) -> None:
    """Writes the page: nothing in it is loaded from anywhere.

    Args:
        folders: run folders and artefacts; those of one name are one student.
        out: the page.
        texts: rows to measure the artefacts on; without them the page shows what the runs have stored.
        teacher_folder: for the teacher's latency and, with ``texts``, the rows on which it differs most.

    Raises:
        OptionError: a folder is neither a run nor an artefact, ``out`` cannot be written, or the teacher is another
            one than an artefact's.
        ExportError: an artefact's file is not what its manifest says.
        DataError: the rows' task or labels are not an artefact's or the teacher's.
        TeacherError: the teacher cannot be loaded.
    """
    if not out.parent.is_dir():
        raise OptionError(f"--out: {out.parent}: no such folder")
    subjects = read_subjects(folders)
    teacher = None if teacher_folder is None else load_teacher(teacher_folder)
    if teacher is not None:
        check_same_teacher(subjects, teacher)
    measured = {subject.name: found for subject in subjects if (found := measure(subject, texts, teacher)) is not None}
    write_text(out, render(subjects, measured, compare_latency(subjects, teacher), teacher))


def render(
    subjects: Sequence[Subject], measured: Mapping[str, Measured], latency: Latency, teacher: Teacher | None
) -> str:
    """The page as HTML; every text in it is escaped."""
    manifests = [subject.manifest for subject in subjects if subject.manifest is not None]
    teachers = _teachers(manifests, latency, teacher)
    curves = [
        Curve(s.name, s.history["evaluations"], s.history["losses"], s.history["shrink_steps"])
        for s in subjects
        if s.history is not None
    ]
    students = [_student(subject, latency) for subject in subjects]
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        title=", ".join(subject.name for subject in subjects),
        teachers=teachers,
        students=students,
        latency=latency,
        accuracies=plot_accuracies(curves, teachers[0]["accuracy"] if len(teachers) == 1 else None) if curves else "",
        losses=[plot_losses(curve) for curve in curves if curve.losses],
        size_plot=plot_points(_points([*teachers, *students], "nonzero_millions"), "non-zero parameters, millions"),
        latency_plot=plot_points(
            _points([*teachers, *students], "median_ms"),
            f"median ms of one text of {latency.tokens} tokens, one thread",
        ),
        parts=list(PARTS.values()),
        layers=[(s.name, layer_table(s.layers), other_matrices(s.layers)) for s in subjects if s.layers],
        measured=measured,
        reliability={name: plot_reliability(name, entry.before, entry.after) for name, entry in measured.items()},
    )


def _student(subject: Subject, latency: Latency) -> dict[str, Any]:
    """A student's line in the table; what is not known is ``None``."""
    line: dict[str, Any] = {"name": subject.name, "is_teacher": False, "nonzero_millions": None, "median_ms": None}
    if subject.manifest is None:
        assert subject.history is not None
        return line | {"made": None, "accuracy": subject.history["evaluations"][-1]["accuracy"]}
    manifest = subject.manifest
    teacher_accuracy = manifest["evaluation"]["teacher_accuracy"]
    figures = manifest["evaluation"]["files"][manifest["default_file"]]
    return line | {
        "made": manifest["compression"],
        "nonzero_millions": manifest["compression"]["nonzero_parameters"] / 1e6,
        "file": manifest["default_file"],
        "evaluation": manifest["evaluation"],
        "accuracy": figures["accuracy"],
        "retention": figures["accuracy"] / teacher_accuracy if teacher_accuracy else None,
        "agreement": figures["agreement"],
        "calibration": manifest["calibration"],
        "median_ms": latency.students.get(subject.name),
    }


def _teachers(
    manifests: Sequence[Mapping[str, Any]], latency: Latency, teacher: Teacher | None
) -> list[dict[str, Any]]:
    """Each teacher once, with its latency where it was measured."""
    lines: dict[str, dict[str, Any]] = {}
    for manifest in manifests:
        name = manifest["teacher"]["name"]
        is_measured = teacher is not None and teacher.card.name == name
        lines[name] = {
            "name": name,
            "is_teacher": True,
            "parameters": manifest["teacher"]["parameters"],
            "nonzero_millions": manifest["teacher"]["parameters"] / 1e6,
            "accuracy": manifest["evaluation"]["teacher_accuracy"],
            "median_ms": latency.teacher if is_measured else None,
        }
    return list(lines.values())


def _points(lines: Sequence[Mapping[str, Any]], cost: str) -> list[Point]:
    return [
        Point(line["name"], line[cost], line["accuracy"], is_teacher=line["is_teacher"])
        for line in lines
        if line[cost] is not None
    ]


def layer_table(layers: Sequence[SavedMatrix]) -> list[tuple[str, list[SavedMatrix | None]]]:
    """A line for each layer with its matrices in the order of ``PARTS``."""
    table: dict[int, dict[str, SavedMatrix]] = {}
    for matrix in layers:
        if found := LAYER.fullmatch(matrix.name):
            table.setdefault(int(found[1]), {})[found[2]] = matrix
    return [(f"layer {index + 1}", [table[index].get(part) for part in PARTS]) for index in sorted(table)]


def other_matrices(layers: Sequence[SavedMatrix]) -> list[SavedMatrix]:
    """The embeddings and the pooler."""
    return [matrix for matrix in layers if not LAYER.fullmatch(matrix.name)]
