"""Reads `models/<name>/`: the manifest against its schema, each file against its sha256, nothing unpickled."""

import hashlib
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn

import jsonschema

from service.errors import ArtefactError
from service.settings import Precision, Provider
from service.stored_file import gunzip, stored_name

SCHEMA_FILE = "manifest.schema.json"
MANIFEST_FILE = "manifest.json"
TOKENIZER_FILE = "tokenizer.json"
GRAPH_FILES: Mapping[str, str] = {"fp32": "model.onnx", "int8": "model.int8.onnx", "fp16": "model.fp16.onnx"}
# What a provider computes fastest, best first, before the manifest's default: on CUDA there are no int8 kernels for
# our graphs, and OpenVINO makes bf16 of fp32 weights.
PREFERRED_PRECISIONS: Mapping[str, tuple[str, ...]] = {"cuda": ("fp16", "fp32"), "openvino": ("fp32",)}
READ_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Artefact:
    """A verified artefact; `manifest` holds everything, the other fields what serving needs."""

    folder: Path
    manifest: dict[str, Any]
    name: str
    version: str
    task: Literal["single", "pair"]
    problem_type: Literal["single_label", "multi_label"]
    labels: tuple[str, ...]  # in logit order
    max_length: int  # tokens, special ones included
    inputs: tuple[str, ...]
    output: str
    temperature: float

    def graph_file(self, precision: Precision, provider: Provider = "auto") -> str:
        """Return the file of that precision, for auto the provider's; raises ArtefactError when there is none."""
        if precision == "auto":
            preferred = [GRAPH_FILES[name] for name in PREFERRED_PRECISIONS.get(provider, ())]
            return next(
                (file for file in preferred if file in self.manifest["files"]), str(self.manifest["default_file"])
            )
        file = GRAPH_FILES[precision]
        if file not in self.manifest["files"]:
            held = ", ".join(name for name in GRAPH_FILES.values() if name in self.manifest["files"])
            raise ArtefactError(f"{self.folder}: has no {precision} graph ({file}), only {held}")
        return file

    def graph_files(self) -> list[str]:
        """Return every graph that the manifest lists."""
        return [file for file in GRAPH_FILES.values() if file in self.manifest["files"]]

    def precision_of(self, file: str) -> str:
        """Return `fp32`, `int8` or `fp16` for a graph file of this artefact."""
        return str(self.manifest["files"][file]["precision"])

    def read(self, file: str) -> bytes:
        """Return a file's content, decoded and verified again, so that what is loaded is what was checked."""
        listed = self.manifest["files"][file]
        path = self.folder / stored_name(file, listed)
        data = _read_regular_file(path)
        if hashlib.sha256(data).hexdigest() != listed["sha256"]:
            raise ArtefactError(f"{path}: its sha256 is not the one in {MANIFEST_FILE}")
        if "encoding" not in listed:
            return data
        try:
            content = gunzip(data, listed["decoded_bytes"])
        except ArtefactError as error:
            raise ArtefactError(f"{path}: {error}") from error
        if hashlib.sha256(content).hexdigest() != listed["decoded_sha256"]:
            raise ArtefactError(f"{path}: the sha256 of what it decodes to is not the one in {MANIFEST_FILE}")
        return content


def read_schema(models_folder: Path) -> dict[str, Any]:
    """Return the manifest's JSON Schema; raises ArtefactError when it is missing or not a schema."""
    path = models_folder / SCHEMA_FILE
    if not path.exists():
        raise ArtefactError(f"{path}: not found; the models folder must hold the manifests' schema")
    schema = _parse_object(path, _read_regular_file(path))
    try:
        jsonschema.Draft202012Validator.check_schema(schema)
    except jsonschema.SchemaError as error:
        raise ArtefactError(f"{path}: not a JSON Schema: {error.message}") from error
    return schema


def find_artefacts(models_folder: Path) -> list[Path]:
    """Return the folders that hold a manifest, by name; hidden ones, where writers work, are left out."""
    if not models_folder.is_dir():
        raise ArtefactError(f"{models_folder}: no such folder")
    try:
        entries = sorted(models_folder.iterdir())
    except OSError as error:
        raise ArtefactError(f"{models_folder}: cannot be read: {error.strerror}") from error
    return [
        entry
        for entry in entries
        if not entry.name.startswith(".") and entry.is_dir() and os.path.lexists(entry / MANIFEST_FILE)
    ]


def read_artefact(folder: Path, schema: Mapping[str, Any]) -> Artefact:
    """Read and verify one artefact; raises ArtefactError with one line that says what does not match."""
    if not folder.is_dir():
        raise ArtefactError(f"{folder}: no such folder")
    path = folder / MANIFEST_FILE
    manifest = _parse_object(path, _read_regular_file(path))
    _check_schema(path, manifest, schema)
    name = folder.resolve().name if folder.name in ("", "..") else folder.name
    if manifest["name"] != name:
        raise ArtefactError(f"{path}: says name {manifest['name']!r} but the folder is {name!r}")
    if manifest["default_file"] not in manifest["files"]:
        raise ArtefactError(f"{path}: default_file {manifest['default_file']!r} is not among its files")
    for file, listed in manifest["files"].items():
        _check_file(folder / stored_name(file, listed), listed["bytes"], listed["sha256"])
    return Artefact(
        folder=folder,
        manifest=manifest,
        name=manifest["name"],
        version=manifest["version"],
        task=manifest["task"],
        problem_type=manifest["problem_type"],
        labels=tuple(manifest["labels"]),
        max_length=manifest["max_length"],
        inputs=tuple(manifest["inputs"]),
        output=manifest["output"],
        temperature=float(manifest["calibration"]["temperature"]),
    )


def _parse_object(path: Path, data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data.decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ArtefactError(f"{path}: not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ArtefactError(f"{path}: not a JSON object")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")


def _check_schema(path: Path, manifest: dict[str, Any], schema: Mapping[str, Any]) -> None:
    error = jsonschema.exceptions.best_match(jsonschema.Draft202012Validator(schema).iter_errors(manifest))
    if error is not None:
        message = error.message if len(error.message) <= 300 else error.message[:300] + "…"
        raise ArtefactError(f"{path}: {error.json_path}: {' '.join(message.split())}")


def _check_file(path: Path, size_bytes: int, sha256: str) -> None:
    digest = hashlib.sha256()
    descriptor = _open_regular_file(path)
    with os.fdopen(descriptor, "rb") as file:
        found_bytes = os.fstat(descriptor).st_size
        if found_bytes != size_bytes:
            raise ArtefactError(f"{path}: has {found_bytes} bytes, {MANIFEST_FILE} says {size_bytes}")
        while chunk := file.read(READ_CHUNK_BYTES):
            digest.update(chunk)
    if digest.hexdigest() != sha256:
        raise ArtefactError(f"{path}: its sha256 is not the one in {MANIFEST_FILE}")


def _read_regular_file(path: Path) -> bytes:
    with os.fdopen(_open_regular_file(path), "rb") as file:
        return file.read()


def _open_regular_file(path: Path) -> int:
    """Open without following a link and without waiting on a pipe: an artefact holds plain files only."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        reason = "is a symbolic link" if path.is_symlink() else f"cannot be read: {error.strerror}"
        raise ArtefactError(f"{path}: {reason}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ArtefactError(f"{path}: not a plain file")
    return descriptor
