"""The students of a report: what is on disk, and what is measured anew."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ladabert_compress.artefact.manifest import MANIFEST_FILE
from ladabert_compress.artefact.reading import read_graph, read_manifest
from ladabert_compress.data.texts import LabelledTexts
from ladabert_compress.errors import DataError, OptionError
from ladabert_compress.graph.encoder import build_bert_graph
from ladabert_compress.graph.session import OnnxSession, onnx_logits
from ladabert_compress.measure.machine import machine_name
from ladabert_compress.measure.predictions import Logits, Predictions, confusion, decide, log_probabilities
from ladabert_compress.measure.reliability import Bin, reliability
from ladabert_compress.measure.timing import measure_latency
from ladabert_compress.report.evaluation import encode_rows, logits_of_teacher
from ladabert_compress.student.matrices import count_parameters
from ladabert_compress.student.saved import SavedMatrix, read_matrices
from ladabert_compress.teacher.folder import Teacher
from ladabert_compress.teacher.identity import weights_digest
from ladabert_compress.training.run import HISTORY_FILE

LATENCY_TOKENS = 64  # of the one text that a caller waits for
TEACHER = "/teacher"  # no student's name has a slash
ROWS_SHOWN = 20
LABELS_SHOWN = 50  # in a matrix
MISTAKES_SHOWN = 50  # in its place
CHARACTERS_SHOWN = 400


@dataclass(frozen=True)
class Subject:
    """One student: what its run wrote, what its artefact says, or both."""

    name: str
    history: Mapping[str, Any] | None = None
    layers: Sequence[SavedMatrix] = ()
    artefact: Path | None = None
    manifest: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Measured:
    """What a student's default graph, or its run, predicts for rows with labels."""

    labels: Sequence[str]
    multi_label: bool  # whether a row may have several labels
    rows: int
    confusion: Sequence[Sequence[int]]  # as `predictions.confusion` counts
    before: Sequence[Bin]
    after: Sequence[Bin] | None
    differences: Sequence[Mapping[str, Any]] = ()

    @property
    def matrix(self) -> Sequence[Sequence[int]] | None:
        """A line for each label: rows by prediction, or the four counts of a label of several; none of many labels."""
        if self.multi_label:
            return self.confusion
        if len(self.labels) > LABELS_SHOWN:
            return None
        matrix = np.zeros((len(self.labels), len(self.labels)), np.int64)
        for label, prediction, rows in self.confusion:
            matrix[label, prediction] = rows
        return [[int(rows) for rows in line] for line in matrix]

    @property
    def mistakes(self) -> list[tuple[str, str, int]]:
        """The most frequent pairs of a label and another prediction, with their rows; (label, prediction, rows)."""
        wrong = [(rows, label, prediction) for label, prediction, rows in self.confusion if label != prediction]
        most = sorted(wrong, key=lambda pair: -pair[0])[:MISTAKES_SHOWN]
        return [(self.labels[label], self.labels[prediction], rows) for rows, label, prediction in most]


@dataclass(frozen=True)
class Latency:
    """Median milliseconds of one text of ``tokens`` tokens on one thread; the teacher's where it was measured."""

    tokens: int
    students: Mapping[str, float]
    teacher: float | None = None
    machine: str | None = None  # ``None``: each on the machine that its manifest names


def read_subjects(folders: Sequence[Path]) -> list[Subject]:
    """The students of these folders in the order in which they are named.

    Raises:
        OptionError: a folder is neither a run nor an artefact.
        ExportError: an artefact's file is not what its manifest says.
    """
    subjects: dict[str, Subject] = {}
    for folder in folders:
        name = folder.resolve().name
        subject = subjects.get(name, Subject(name))
        if (folder / MANIFEST_FILE).is_file():
            manifest = read_manifest(folder)
            if "evaluation" not in manifest:
                raise OptionError(f"{folder}: was adopted, not compressed; a report is about students")
            if manifest["problem_type"] == "regression":
                raise OptionError(f"{folder}: is a regression, a report is about labels; `evaluate` has its figures")
            subject = replace(subject, artefact=folder, manifest=manifest)
        elif (folder / HISTORY_FILE).is_file():
            try:
                history = json.loads((folder / HISTORY_FILE).read_text(encoding="utf-8"))
            except ValueError as error:
                raise OptionError(f"{folder / HISTORY_FILE}: not JSON: {error}") from error
            if history.get("dev", {}).get("problem_type") == "regression":
                raise OptionError(f"{folder}: is a regression, a report is about labels; `evaluate` has its figures")
            if "counts" not in history.get("dev", {}):
                raise OptionError(f"{folder / HISTORY_FILE}: an older version wrote it; run compress anew")
            subject = replace(subject, history=history, layers=read_matrices(folder))
        else:
            raise OptionError(f"{folder}: has neither {HISTORY_FILE} of a run nor {MANIFEST_FILE} of an artefact")
        subjects[name] = subject
    return list(subjects.values())


def check_same_teacher(subjects: Sequence[Subject], teacher: Teacher) -> None:
    """Refuses a teacher that an artefact was not made of: what they differ in would say nothing of the compression.

    Artefacts of earlier versions do not say which weights their teacher had; their teacher's size has to fit.

    Raises:
        OptionError: names the artefact and its own teacher.
    """
    found = {"sha256": weights_digest(teacher.model), "parameters": count_parameters(teacher.model).total}
    for subject in subjects:
        own = {} if subject.manifest is None else subject.manifest["teacher"]
        if any(own[key] != value for key, value in found.items() if key in own):
            raise OptionError(
                f"--teacher: {subject.artefact} was made of another teacher, {own['name']} with "
                f"{own['parameters']:,} parameters, whose weights differ; name the folder of that one"
            )


def compare_latency(subjects: Sequence[Subject], teacher: Teacher | None) -> Latency:
    """Milliseconds of one text: all artefacts and the teacher taking turns here, or what the manifests say."""
    manifests = {s.name: s.manifest for s in subjects if s.manifest is not None}
    tokens = min([LATENCY_TOKENS, *(manifest["max_length"] for manifest in manifests.values())])
    if teacher is None or not manifests:
        return Latency(tokens, {name: ms for name, m in manifests.items() if (ms := _recorded_ms(m, tokens))})
    task = next(iter(manifests.values()))["task"]
    sessions = {
        s.name: OnnxSession(read_graph(s.artefact, s.manifest, s.manifest["default_file"]))
        for s in subjects
        if s.artefact and s.manifest
    }
    teacher_session = OnnxSession(build_bert_graph(teacher.model, task).SerializeToString())
    table = measure_latency({TEACHER: teacher_session, **sessions}, tokens, shapes=[(1, tokens)])
    medians = {row["file"]: row["median_ms"] for row in table}
    return Latency(tokens, medians, medians.pop(TEACHER), machine_name())


def _recorded_ms(manifest: Mapping[str, Any], tokens: int) -> float | None:
    for row in manifest["latency"]["table"]:
        if (row["file"], row["batch"], row["tokens"]) == (manifest["default_file"], 1, tokens):
            return float(row["median_ms"])
    return None


def measure(subject: Subject, texts: LabelledTexts | None, teacher: Teacher | None) -> Measured | None:
    """The student on these rows, or what its run has stored about dev."""
    if texts is None or subject.manifest is None or subject.artefact is None:
        if subject.history is None:
            return None
        stored = subject.history["dev"]
        bins = [Bin(**entry) for entry in stored["reliability"]]
        return Measured(stored["labels"], stored["multi_label"], stored["rows"], stored["counts"], bins, None)
    manifest, folder = subject.manifest, subject.artefact
    labels: list[str] = manifest["labels"]
    is_known = "sha256" in manifest["teacher"]  # and has been compared; its labels may have got other names
    if teacher is not None and not is_known and list(teacher.labels) != labels:
        raise DataError(f"--teacher: its labels are {', '.join(teacher.labels)}, those of {folder} {', '.join(labels)}")
    data = encode_rows(folder, manifest, texts)
    logits = onnx_logits(OnnxSession(read_graph(folder, manifest, manifest["default_file"])), data)
    truth, temperature = data.labels, manifest["calibration"]["temperature"]
    differences: list[dict[str, Any]] = []
    if teacher is not None:
        teacher_logits = logits_of_teacher(teacher, texts, data.labels, manifest["max_length"])
        differences = _largest_differences(texts, labels, truth, logits / temperature, teacher_logits)
    return Measured(
        labels,
        truth.ndim == 2,
        len(texts),
        confusion(decide(logits, truth), truth, len(labels)),
        reliability(logits, truth),
        reliability(logits, truth, temperature),
        differences,
    )


def _largest_differences(
    texts: LabelledTexts, labels: Sequence[str], truth: Predictions, student: Logits, teacher: Logits
) -> list[dict[str, Any]]:
    """The rows of the largest differences between any label's scores."""
    student_scores, teacher_scores = (np.exp(log_probabilities(logits, truth)) for logits in (student, teacher))
    gaps = np.abs(student_scores - teacher_scores).reshape(len(texts), -1).max(axis=1)
    return [
        {
            "gap": float(gaps[row]),
            "text": _shortened(texts.texts[row]),
            "pair": None if texts.pairs is None else _shortened(texts.pairs[row]),
            "label": _names(truth[row], labels),
            "teacher": _prediction(teacher[row], truth, labels, teacher_scores[row]),
            "student": _prediction(student[row], truth, labels, student_scores[row]),
        }
        for row in np.argsort(-gaps, kind="stable")[:ROWS_SHOWN].tolist()
    ]


def _shortened(text: str) -> str:
    return text if len(text) <= CHARACTERS_SHOWN else text[:CHARACTERS_SHOWN] + "…"


def _names(truth: Any, labels: Sequence[str]) -> str:
    if np.ndim(truth) == 0:
        return labels[int(truth)]
    return ", ".join(label for label, chosen in zip(labels, truth, strict=True) if chosen) or "none"


def _prediction(logits: Logits, like: Predictions, labels: Sequence[str], scores: Any) -> str:
    """`positive 0.93`, or every label with a score over a half."""
    prediction = decide(logits[None], like)[0]
    if like.ndim == 1:
        return f"{labels[int(prediction)]} {scores[int(prediction)]:.2f}"
    chosen = [f"{label} {scores[index, 1]:.2f}" for index, label in enumerate(labels) if prediction[index]]
    return ", ".join(chosen) or "none"
