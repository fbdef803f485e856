"""The folder that the service loads: written whole or not at all, read only where every sum fits."""

from __future__ import annotations

import datetime
import hashlib
import json
import re
import tempfile
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import jsonschema
import onnx
from tokenizers import Tokenizer

from compression.checkpoint import cannot_be_written
from compression.errors import ExportError

SCHEMA_FILE = "manifest.schema.json"
MANIFEST_FILE = "manifest.json"
TOKENIZER_FILE = "tokenizer.json"
GRAPH_FILES = {"fp32": "model.onnx", "int8": "model.int8.onnx"}
PRODUCERS = ("ladabert", "torch", "transformers", "onnx", "onnxruntime")


def write_artefact(
    out: Path, graphs: Mapping[str, onnx.ModelProto], tokenizer: Tokenizer, fields: Mapping[str, Any]
) -> dict[str, Any]:
    """Writes ``out`` under a temporary name, validates the manifest, and renames it into place.

    Args:
        out: the artefact's folder; its name is the model's name, its parent holds the manifest's schema.
        graphs: precision (``fp32``, ``int8``) to graph, the default first.
        tokenizer: written without truncation and padding.
        fields: the manifest's fields that do not follow from the files.

    Returns:
        The manifest.

    Raises:
        ExportError: the schema is missing, the manifest does not fit it, or the disk is full; nothing is left behind.
    """
    try:
        return _write_artefact(out, graphs, tokenizer, fields)
    except OSError as error:
        raise ExportError(cannot_be_written(out, error)) from error


def _write_artefact(
    out: Path, graphs: Mapping[str, onnx.ModelProto], tokenizer: Tokenizer, fields: Mapping[str, Any]
) -> dict[str, Any]:
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as temporary:
        partial = Path(temporary) / out.name
        partial.mkdir()
        for precision, graph in graphs.items():
            onnx.save(graph, partial / GRAPH_FILES[precision])
        plain = Tokenizer.from_str(tokenizer.to_str())
        plain.no_truncation()
        plain.no_padding()
        (partial / TOKENIZER_FILE).write_text(plain.to_str(pretty=True), encoding="utf-8")
        files: dict[str, dict[str, Any]] = {
            GRAPH_FILES[precision]: {"precision": precision, **_sum(partial / GRAPH_FILES[precision])}
            for precision in graphs
        }
        files[TOKENIZER_FILE] = _sum(partial / TOKENIZER_FILE)
        default_file = GRAPH_FILES[next(iter(graphs))]
        sums = "".join(files[name]["sha256"] for name in sorted(files))
        manifest = {
            "schema_version": 1,
            "name": out.name,
            "version": hashlib.sha256(sums.encode()).hexdigest()[:12],
            "created_at": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            **fields,
            "default_file": default_file,
            "files": files,
            "produced_by": {name: metadata.version(name) for name in PRODUCERS},
        }
        manifest["compression"] = {**manifest["compression"], "stored_bytes": files[default_file]["bytes"]}
        validate_manifest(manifest, out.parent)
        (partial / MANIFEST_FILE).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        previous = Path(temporary) / "previous"
        try:
            if out.exists():
                out.rename(previous)
            partial.rename(out)
        except BaseException:  # the temporary folder is deleted with what is in it
            if previous.exists():
                previous.rename(out)
            raise
    return manifest


def check_out(out: Path) -> None:
    """Finds out before a long run whether an artefact can be written to ``out``.

    Raises:
        ExportError: the schema is missing, the name cannot be a model's, or something else stands there.
    """
    pattern = read_schema(out.parent)["properties"]["name"]["pattern"]
    if not re.fullmatch(pattern, out.name):
        raise ExportError(f"--out: {out.name!r} cannot be a model's name; use letters, digits, '.', '_' and '-'")
    if out.exists() and not (out / MANIFEST_FILE).is_file():
        raise ExportError(f"--out: {out} exists and is no artefact that could be replaced; name another folder")


def read_schema(models: Path) -> dict[str, Any]:
    """The manifest's schema in the folder of artefacts.

    Raises:
        ExportError: it is missing.
    """
    schema_file = models / SCHEMA_FILE
    if not schema_file.is_file():
        raise ExportError(f"{schema_file}: missing; copy it from the project's models/ folder")
    schema: dict[str, Any] = json.loads(schema_file.read_text(encoding="utf-8"))
    return schema


def validate_manifest(manifest: Any, models: Path) -> None:
    """Checks a manifest against the schema in the folder of artefacts.

    Raises:
        ExportError: names the field that does not fit.
    """
    try:
        jsonschema.validate(manifest, read_schema(models))
    except jsonschema.ValidationError as error:
        raise ExportError(f"manifest: {error.json_path}: {error.message}") from error


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of an artefact whose files all have the sums that it says.

    Raises:
        ExportError: the folder is no artefact, or a file is missing or changed.
    """
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ExportError(f"{folder}: no readable {MANIFEST_FILE} there; expected models/NAME") from error
    validate_manifest(manifest, folder.resolve().parent)
    for name, entry in manifest["files"].items():
        if not (folder / name).is_file() or _sum(folder / name)["sha256"] != entry["sha256"]:
            raise ExportError(f"{folder / name}: is not the file that the manifest describes; export it again")
    return manifest


def format_manifest(manifest: Mapping[str, Any]) -> str:
    """What was made: parameters, non-zeros, bytes and accuracy, each apart."""
    made, figures = manifest["compression"], manifest["evaluation"]
    lines = [
        f"{manifest['name']}: ×{made['reached_ratio']:.2f} reached, ×{made['requested_ratio']:g} asked for",
        f"  teacher parameters   {manifest['teacher']['parameters']:>12,}",
        f"  student parameters   {made['parameters']:>12,}",
        f"  non-zero parameters  {made['nonzero_parameters']:>12,}",
    ]
    teacher = figures["teacher_accuracy"]
    lines += [
        f"  {name:<20} {manifest['files'][name]['bytes']:>12,} bytes, dev accuracy {scores['accuracy']:.4f}, "
        + (f"{scores['accuracy'] / teacher:.1%} of the teacher's {teacher:.4f}" if teacher else "the teacher's 0")
        for name, scores in figures["files"].items()
    ]
    calibration = manifest["calibration"]
    lines.append(
        f"  temperature          {calibration['temperature']:>12.3f} from {calibration['rows']:,} rows: "
        f"calibration error on dev {calibration['ece_after']:.4f}, without it {calibration['ece_before']:.4f}"
    )
    return "\n".join(lines)


def _sum(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
