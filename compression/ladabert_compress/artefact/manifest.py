"""The manifest, which says everything about a student: its schema, its version, and what a person reads of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from importlib import resources
from typing import Any

import jsonschema

from ladabert_compress.artefact.stored_file import content_sha256
from ladabert_compress.errors import ExportError

SCHEMA_FILE = "manifest.schema.json"
CASCADE_SCHEMA_FILE = "cascade.schema.json"
MANIFEST_FILE = "manifest.json"
TOKENIZER_FILE = "tokenizer.json"
METRIC_NAMES = {"accuracy": "accuracy", "pearson": "Pearson correlation"}
GRAPH_FILES = {"fp32": "model.onnx", "int8": "model.int8.onnx", "fp16": "model.fp16.onnx"}


def artefact_version(files: Mapping[str, Mapping[str, Any]]) -> str:
    """The version that follows from the files' contents, however they are stored."""
    sums = "".join(content_sha256(files[name]) for name in sorted(files))
    return hashlib.sha256(sums.encode()).hexdigest()[:12]


def read_schema(file: str = SCHEMA_FILE) -> dict[str, Any]:
    """The manifest's schema, which is part of this package."""
    schema: dict[str, Any] = json.loads(resources.files(__package__).joinpath(file).read_bytes())
    return schema


def validate_manifest(manifest: Any, schema_file: str = SCHEMA_FILE) -> None:
    """Checks a manifest against its schema.

    Raises:
        ExportError: names the field that does not fit, or a number that JSON cannot hold.
    """
    try:
        json.dumps(manifest, allow_nan=False)
        jsonschema.validate(manifest, read_schema(schema_file))
    except jsonschema.ValidationError as error:
        raise ExportError(f"manifest: {error.json_path}: {error.message}") from error
    except ValueError as error:
        raise ExportError(f"manifest: {error}") from error


def format_manifest(manifest: Mapping[str, Any]) -> str:
    """The figures for a person to read: parameters, non-zeros, bytes and accuracy, each apart."""
    made, figures = manifest["compression"], manifest["evaluation"]
    reached = f"×{made['reached_ratio']:.2f} reached, ×{made['requested_ratio']:g} asked for"
    lines = [
        f"{manifest['name']}: {'the teacher, not compressed' if made['method'] == 'none' else reached}",
        f"  teacher parameters   {manifest['teacher']['parameters']:>12,}",
        f"  student parameters   {made['parameters']:>12,}",
        f"  non-zero parameters  {made['nonzero_parameters']:>12,}",
    ]
    lines += [
        f"  {name:<20} {manifest['files'][name]['bytes']:>12,} bytes, {_quality(scores, figures)}"
        for name, scores in figures["files"].items()
    ]
    if figures.get("labels") != "teacher":
        metric = main_figure(figures)
        lines.append(f"  PyTorch student      dev {METRIC_NAMES[metric]} {figures[f'student_{metric}']:.4f}")
    if target := manifest["latency"].get("target"):
        lines.append(
            f"  one text, {target['tokens']} tokens  {target['median_ms']:>10.3f} ms on one thread "
            f"in {target['file']}, {target['target_ms']:g} ms asked for"
        )
    calibration = manifest["calibration"]
    fitted = f"  temperature          {calibration['temperature']:>12.3f} from {calibration['rows']:,} rows"
    if "ece_after" not in calibration:
        return "\n".join(lines)  # scores have no temperature
    if calibration["temperature"] == 1:
        fitted = f"  temperature          {'none':>12}, as {calibration['rows']:,} held-out rows support none"
    elif figures.get("labels") != "teacher":
        fitted += (
            f": calibration error on dev {calibration['ece_after']:.4f}, without it {calibration['ece_before']:.4f}"
        )
    lines.append(fitted)
    return "\n".join(lines)


def main_figure(figures: Mapping[str, Any]) -> str:
    """Which figure a manifest's evaluation is about: accuracy, or of scores Pearson's correlation."""
    return "accuracy" if "teacher_accuracy" in figures else "pearson"


def _quality(scores: Mapping[str, Any], figures: Mapping[str, Any]) -> str:
    """Accuracy against the teacher's; where nobody labelled dev, agreement with the teacher alone."""
    metric = main_figure(figures)
    teacher = figures[f"teacher_{metric}"]
    if figures.get("labels") == "teacher":
        return (
            f"{scores['agreement']:.2%} agreement with the teacher and KL {scores['divergence']:.4f} on "
            f"{figures['rows']:,} held-out rows; nobody labelled them, so there is no accuracy"
        )
    of_teacher = f"{scores[metric] / teacher:.1%} of the teacher's {teacher:.4f}" if teacher else "the teacher's 0"
    return f"dev {METRIC_NAMES[metric]} {scores[metric]:.4f}, {of_teacher}"
