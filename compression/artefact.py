"""The folder that the service loads: written whole or not at all, read only where every sum fits."""

from __future__ import annotations

import datetime
import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Mapping
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import jsonschema
import onnx
from tokenizers import Tokenizer

from compression.checkpoint import cannot_be_written
from compression.errors import ExportError
from compression.stored_file import content_sha256, is_stored, read_stored, store, stored_name

SCHEMA_FILE = "manifest.schema.json"
MANIFEST_FILE = "manifest.json"
TOKENIZER_FILE = "tokenizer.json"
GRAPH_FILES = {"fp32": "model.onnx", "int8": "model.int8.onnx", "fp16": "model.fp16.onnx"}
PRODUCERS = ("ladabert", "torch", "transformers", "onnx", "onnxruntime")


def write_artefact(
    out: Path, graphs: Mapping[str, onnx.ModelProto], tokenizer: Tokenizer, fields: Mapping[str, Any]
) -> dict[str, Any]:
    """Writes ``out`` under a temporary name, validates the manifest, and renames it into place.

    Args:
        out: the artefact's folder; its name is the model's name.
        graphs: precision (``fp32``, ``int8``) to graph, the default first.
        tokenizer: written without truncation and padding.
        fields: the manifest's fields that do not follow from the files.

    Returns:
        The manifest.

    Raises:
        ExportError: the manifest does not fit its schema, or the disk is full; nothing is left behind.
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
        plain = Tokenizer.from_str(tokenizer.to_str())
        plain.no_truncation()
        plain.no_padding()
        files: dict[str, dict[str, Any]] = {
            GRAPH_FILES[precision]: {
                "precision": precision,
                **store(partial, GRAPH_FILES[precision], graph.SerializeToString()),
            }
            for precision, graph in graphs.items()
        }
        files[TOKENIZER_FILE] = store(partial, TOKENIZER_FILE, plain.to_str().encode(), plain=True)
        default_file = GRAPH_FILES[next(iter(graphs))]
        manifest = {
            "schema_version": 1,
            "name": out.name,
            "version": artefact_version(files),
            "created_at": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            **fields,
            "default_file": default_file,
            "files": files,
            "produced_by": {name: metadata.version(name) for name in PRODUCERS},
        }
        manifest["compression"] = {**manifest["compression"], "stored_bytes": files[default_file]["bytes"]}
        validate_manifest(manifest)
        (partial / MANIFEST_FILE).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        replace_artefact(out, partial)
    return manifest


def artefact_version(files: Mapping[str, Mapping[str, Any]]) -> str:
    """The version that follows from the files' contents, however they are stored."""
    sums = "".join(content_sha256(files[name]) for name in sorted(files))
    return hashlib.sha256(sums.encode()).hexdigest()[:12]


def replace_artefact(out: Path, partial: Path) -> None:
    """Renames ``partial``, whose parent is a temporary folder, to ``out``; what was there stays when that fails."""
    previous = partial.parent / ".previous"  # no artefact has such a name
    try:
        if out.exists():
            out.rename(previous)
        partial.rename(out)
    except BaseException:  # the temporary folder is deleted with what is in it
        if previous.exists():
            previous.rename(out)
        raise


def pack(folder: Path, *, plain: bool = False) -> dict[str, Any]:
    """Stores an artefact's files anew, as small as they can be or ``plain``: their content stays, bit for bit.

    Name, version and every figure but the stored bytes stay, too; the folder is replaced in one step.

    Returns:
        The manifest.

    Raises:
        ExportError: the folder is no artefact, a file is missing or changed, or the disk is full; nothing is changed.
    """
    manifest = read_manifest(folder)
    folder = folder.resolve()
    try:
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as temporary:
            partial = Path(temporary) / folder.name
            shutil.copytree(folder, partial)
            for name, entry in manifest["files"].items():
                (partial / stored_name(name, entry)).unlink()
                content = read_stored(folder, name, entry)
                kept = {key: entry[key] for key in ("precision",) if key in entry}
                manifest["files"][name] = {**kept, **store(partial, name, content, plain=plain)}
            manifest["compression"]["stored_bytes"] = manifest["files"][manifest["default_file"]]["bytes"]
            validate_manifest(manifest)
            (partial / MANIFEST_FILE).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
            replace_artefact(folder, partial)
    except OSError as error:
        raise ExportError(f"{folder}: cannot be written ({error.strerror}); nothing was changed") from error
    return manifest


def read_tokenizer(folder: Path, manifest: Mapping[str, Any]) -> Tokenizer:
    """An artefact's tokenizer, however it is stored.

    Raises:
        ExportError: the file cannot be decoded to what the manifest describes.
    """
    content = read_stored(folder, TOKENIZER_FILE, manifest["files"][TOKENIZER_FILE])
    return Tokenizer.from_str(content.decode("utf-8"))


def read_graph(folder: Path, manifest: Mapping[str, Any], name: str) -> bytes:
    """The ONNX graph ``name`` of an artefact, however it is stored.

    Raises:
        ExportError: it is not what the manifest describes.
    """
    return read_stored(folder, name, manifest["files"][name])


def check_out(out: Path) -> None:
    """Finds out before a long run whether an artefact can be written to ``out``.

    Raises:
        ExportError: the name cannot be a model's, or something else stands there.
    """
    pattern = read_schema()["properties"]["name"]["pattern"]
    if not re.fullmatch(pattern, out.name):
        raise ExportError(f"--out: {out.name!r} cannot be a model's name; use letters, digits, '.', '_' and '-'")
    if out.exists() and not (out / MANIFEST_FILE).is_file():
        raise ExportError(f"--out: {out} exists and is no artefact that could be replaced; name another folder")


def read_schema() -> dict[str, Any]:
    """The manifest's schema, which is part of this package."""
    schema: dict[str, Any] = json.loads(resources.files("compression").joinpath(SCHEMA_FILE).read_bytes())
    return schema


def validate_manifest(manifest: Any) -> None:
    """Checks a manifest against its schema.

    Raises:
        ExportError: names the field that does not fit, or a number that JSON cannot hold.
    """
    try:
        json.dumps(manifest, allow_nan=False)
        jsonschema.validate(manifest, read_schema())
    except jsonschema.ValidationError as error:
        raise ExportError(f"manifest: {error.json_path}: {error.message}") from error
    except ValueError as error:
        raise ExportError(f"manifest: {error}") from error


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of an artefact whose files all have the sums that it says.

    Raises:
        ExportError: the folder is no artefact, or a file is missing or changed.
    """
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ExportError(f"{folder}: no readable {MANIFEST_FILE} there; expected models/NAME") from error
    validate_manifest(manifest)
    for name, entry in manifest["files"].items():
        if not is_stored(folder, name, entry):
            raise ExportError(
                f"{folder / stored_name(name, entry)}: is not the file that the manifest describes; export it again"
            )
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
    lines.append(f"  PyTorch student      dev accuracy {figures['student_accuracy']:.4f}")
    if target := manifest["latency"].get("target"):
        lines.append(
            f"  one text, {target['tokens']} tokens  {target['median_ms']:>10.3f} ms on one thread "
            f"in {target['file']}, {target['target_ms']:g} ms asked for"
        )
    calibration = manifest["calibration"]
    lines.append(
        f"  temperature          {calibration['temperature']:>12.3f} from {calibration['rows']:,} rows: "
        f"calibration error on dev {calibration['ece_after']:.4f}, without it {calibration['ece_before']:.4f}"
    )
    return "\n".join(lines)
