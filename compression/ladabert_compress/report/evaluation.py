"""``ladabert-compress evaluate``: an artefact's accuracy, calibration and latency, as the server runs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast

from ladabert_compress.artefact.reading import read_graphs, read_manifest, read_tokenizer
from ladabert_compress.artefact.verification import measure_invariance
from ladabert_compress.data.batches import EncodedTexts, Labels, encode
from ladabert_compress.data.labels import targets_of
from ladabert_compress.data.texts import LabelledTexts
from ladabert_compress.errors import DataError
from ladabert_compress.graph.session import OnnxSession, onnx_logits
from ladabert_compress.measure.inference import predict_logits
from ladabert_compress.measure.machine import machine_name
from ladabert_compress.measure.predictions import Logits
from ladabert_compress.measure.scores import score
from ladabert_compress.measure.timing import measure_latency
from ladabert_compress.teacher.folder import Teacher, load_teacher
from ladabert_compress.teacher.source import TeacherSource

TITLES = {
    "accuracy": "accuracy",
    "macro_f1": "macro F1",
    "matthews": "Matthews",
    "pearson": "Pearson",
    "spearman": "Spearman",
}


def evaluate(
    folder: Path,
    texts: LabelledTexts,
    *,
    teacher_folder: TeacherSource | Path | None = None,
    batch_invariance: bool = False,
) -> dict[str, Any]:
    """The figures of every graph of the artefact on these rows; with a teacher, the agreement with it, too.

    With ``batch_invariance``, also by how much a row's scores change with the rest of its batch and with padding.

    Raises:
        ExportError: the folder is no artefact, or a file is not what its manifest says.
        DataError: the rows' task or labels are not the artefact's.
        TeacherError: the teacher cannot be loaded.
    """
    manifest = read_manifest(folder)
    data = encode_rows(folder, manifest, texts)
    teacher_logits = None
    if teacher_folder is not None:
        teacher = load_teacher(teacher_folder)
        teacher_logits = logits_of_teacher(teacher, texts, data.labels, manifest["max_length"])
    sessions = {name: OnnxSession(graph) for name, graph in read_graphs(folder, manifest).items()}
    temperature = manifest["calibration"]["temperature"]
    return {
        "name": manifest["name"],
        "version": manifest["version"],
        "rows": len(data),
        "temperature": temperature,
        "teacher": None if teacher_logits is None else asdict(score(teacher_logits, data.labels)),
        "files": {
            name: asdict(score(onnx_logits(session, data), data.labels, teacher_logits, temperature=temperature))
            for name, session in sessions.items()
        },
        "batch_invariance": {
            name: asdict(measure_invariance(session, data, manifest["max_length"]))
            for name, session in sessions.items()
            if batch_invariance
        },
        "latency": {
            "machine": machine_name(),
            "threads": 1,
            "table": measure_latency(sessions, manifest["max_length"]),
        },
    }


def encode_rows(folder: Path, manifest: Mapping[str, Any], texts: LabelledTexts) -> EncodedTexts:
    """Rows as the artefact's tokenizer and labels have them.

    Raises:
        DataError: the rows' task or labels are not the artefact's.
        ExportError: the tokenizer's file is not what the manifest says.
    """
    if texts.task != manifest["task"]:
        raise DataError(f"--data: is a {texts.task} task, {folder} is a {manifest['task']} model")
    labels = targets_of("--data", texts, manifest["labels"], manifest["problem_type"])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=read_tokenizer(folder, manifest))
    return encode(texts, labels, tokenizer, manifest["max_length"])


def logits_of_teacher(teacher: Teacher, texts: LabelledTexts, labels: Labels, max_length: int) -> Logits:
    """The teacher's logits (N, classes) of these rows."""
    data = encode(texts, labels, teacher.tokenizer, max_length)
    logits: Logits = predict_logits(teacher.model, data, torch.device("cpu")).numpy()
    return logits


def format_evaluation(figures: dict[str, Any]) -> str:
    """The figures as text."""
    lines = [f"{figures['name']} {figures['version']} on {figures['rows']} rows"]
    if figures["teacher"] is not None:
        lines.append(f"  {'teacher':<16}{_quality(figures['teacher'])}")
    for name, scores in figures["files"].items():
        calibration = ""
        if scores["expected_calibration_error"] is not None:
            calibration = (
                f"  calibration error {scores['expected_calibration_error']:.4f} "
                f"({scores['uncalibrated_error']:.4f} without the temperature of {figures['temperature']:.3f})"
            )
        agreement = "" if scores["agreement"] is None else f"  agreement with teacher {scores['agreement']:.4f}"
        lines.append(f"  {name:<16}{_quality(scores)}{calibration}{agreement}")
    lines += [
        f"  {name:<16}  alone, in batches of 32, padded: scores change by {found['largest_score_change']:.1e} at most, "
        f"{found['changed_labels']} of {found['rows']} labels change"
        for name, found in figures["batch_invariance"].items()
    ]
    lines.append(f"median ms, {figures['latency']['threads']} thread, {figures['latency']['machine']}")
    lines += [
        f"  {row['file']:<16}  {row['batch']:>3} texts of {row['tokens']:>3} tokens  {row['median_ms']:>8.3f}"
        for row in figures["latency"]["table"]
    ]
    return "\n".join(lines)


def _quality(scores: Mapping[str, Any]) -> str:
    return "".join(f"  {title} {scores[name]:.4f}" for name, title in TITLES.items() if scores[name] is not None)
