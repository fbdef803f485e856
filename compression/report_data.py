"""Students as a report sees them: what is on disk, and what is measured anew."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast

from compression.answers import Answers, Logits, confusion, decide, log_probabilities
from compression.artefact import MANIFEST_FILE, read_graph, read_manifest, read_tokenizer
from compression.batches import encode
from compression.bert_graph import build_bert_graph
from compression.calibration import Bin, reliability
from compression.compress import HISTORY_FILE
from compression.data import LabelledTexts, targets_of
from compression.errors import DataError, OptionError
from compression.evaluation import onnx_logits
from compression.layers import LayerMatrix, read_layers
from compression.machine import machine_name
from compression.onnx_session import OnnxSession
from compression.teacher import Teacher
from compression.timing import measure_latency
from compression.training import predict_logits

LATENCY_TOKENS = 64  # of the one text that a caller waits for
TEACHER = "/teacher"  # no student's name has a slash
ROWS_SHOWN = 20
CHARACTERS_SHOWN = 400


@dataclass(frozen=True)
class Subject:
    """One student: what its run wrote, what its artefact says, or both."""

    name: str
    history: Mapping[str, Any] | None = None
    layers: Sequence[LayerMatrix] = ()
    artefact: Path | None = None
    manifest: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Measured:
    """What a student's default graph, or its run, says about rows with labels."""

    labels: Sequence[str]
    several: bool  # a row may have several labels
    rows: int
    confusion: Sequence[Sequence[int]]
    before: Sequence[Bin]
    after: Sequence[Bin] | None
    differences: Sequence[Mapping[str, Any]] = ()


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
            subject = replace(subject, artefact=folder, manifest=read_manifest(folder))
        elif (folder / HISTORY_FILE).is_file():
            try:
                history = json.loads((folder / HISTORY_FILE).read_text(encoding="utf-8"))
            except ValueError as error:
                raise OptionError(f"{folder / HISTORY_FILE}: not JSON: {error}") from error
            subject = replace(subject, history=history, layers=read_layers(folder))
        else:
            raise OptionError(f"{folder}: has neither {HISTORY_FILE} of a run nor {MANIFEST_FILE} of an artefact")
        subjects[name] = subject
    return list(subjects.values())


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
        stored = (subject.history or {}).get("dev")
        if stored is None:
            return None
        bins = [Bin(**entry) for entry in stored["reliability"]]
        return Measured(stored["labels"], stored["several"], stored["rows"], stored["confusion"], bins, None)
    manifest, folder = subject.manifest, subject.artefact
    if texts.task != manifest["task"]:
        raise DataError(f"--data: is a {texts.task} task, {folder} is a {manifest['task']} model")
    labels: list[str] = manifest["labels"]
    if teacher is not None and list(teacher.labels) != labels:
        raise DataError(f"--teacher: its labels are {', '.join(teacher.labels)}, those of {folder} {', '.join(labels)}")
    targets = targets_of("--data", texts, labels, manifest["problem_type"])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=read_tokenizer(folder, manifest))
    data = encode(texts, targets, tokenizer, manifest["max_length"])
    logits = onnx_logits(OnnxSession(read_graph(folder, manifest, manifest["default_file"])), data)
    truth, temperature = np.array(targets), manifest["calibration"]["temperature"]
    differences: list[dict[str, Any]] = []
    if teacher is not None:
        teacher_data = encode(texts, targets, teacher.tokenizer, manifest["max_length"])
        teacher_logits = predict_logits(teacher.model, teacher_data, torch.device("cpu")).numpy()
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
    texts: LabelledTexts, labels: Sequence[str], truth: Answers, student: Logits, teacher: Logits
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
            "teacher": _answer(teacher[row], truth, labels, teacher_scores[row]),
            "student": _answer(student[row], truth, labels, student_scores[row]),
        }
        for row in np.argsort(-gaps, kind="stable")[:ROWS_SHOWN].tolist()
    ]


def _shortened(text: str) -> str:
    return text if len(text) <= CHARACTERS_SHOWN else text[:CHARACTERS_SHOWN] + "…"


def _names(answer: Any, labels: Sequence[str]) -> str:
    if np.ndim(answer) == 0:
        return labels[int(answer)]
    return ", ".join(label for label, chosen in zip(labels, answer, strict=True) if chosen) or "none"


def _answer(logits: Logits, like: Answers, labels: Sequence[str], scores: Any) -> str:
    """`positive 0.93`, or every label with a score over a half."""
    answer = decide(logits[None], like)[0]
    if like.ndim == 1:
        return f"{labels[int(answer)]} {scores[int(answer)]:.2f}"
    chosen = [f"{label} {scores[index, 1]:.2f}" for index, label in enumerate(labels) if answer[index]]
    return ", ".join(chosen) or "none"
