"""Reads `models/<name>/`: the manifest against its schema, each file against its sha256, nothing unpickled."""

import functools
import hashlib
import json
import os
import stat
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import IO, Any, Literal, NoReturn

import jsonschema

from ladabert_serve.errors import ArtefactError
from ladabert_serve.models.scores import ProblemType
from ladabert_serve.models.stages import Stage, stages_of
from ladabert_serve.models.stored_file import gunzip, stored_name
from ladabert_serve.settings import Precision, Provider

SCHEMA_FILE = "manifest.schema.json"
CASCADE_SCHEMA_FILE = "cascade.schema.json"
MANIFEST_FILE = "manifest.json"
TOKENIZER_FILE = "tokenizer.json"
GRAPH_FILES: Mapping[str, str] = {"fp32": "model.onnx", "int8": "model.int8.onnx", "fp16": "model.fp16.onnx"}
# What a provider computes fastest, best first, before the manifest's default: on CUDA there are no int8 kernels for
# our graphs, and OpenVINO makes bf16 of fp32 weights.
PREFERRED_PRECISIONS: Mapping[str, tuple[str, ...]] = {"cuda": ("fp16", "fp32"), "openvino": ("fp32",)}
READ_CHUNK_BYTES = 1 << 20
MAX_MANIFEST_BYTES = 1 << 20
MAX_DEPTH = 32
LARGEST_NUMBER = 2**53  # beyond, readers of JSON disagree


@dataclass(frozen=True, slots=True)
class Artefact:
    """A verified artefact; `manifest` holds everything, the other fields what serving needs."""

    folder: Path
    manifest: dict[str, Any]
    name: str
    aliases: tuple[str, ...]
    version: str
    task: Literal["single", "pair"]
    problem_type: ProblemType
    labels: tuple[str, ...]  # in logit order
    max_length: int  # tokens, special ones included
    pad_token_id: int | None  # None: that of [PAD]
    inputs: tuple[str, ...]
    output: str
    temperature: float
    stages: tuple[Stage, ...] = ()  # of a cascade, which has no graph of its own

    def graph_file(self, precision: Precision, provider: Provider = "auto") -> str:
        """Return the file of that precision, for auto the provider's; raises ArtefactError when there is none."""
        if precision == "auto":
            preferred = [GRAPH_FILES[name] for name in PREFERRED_PRECISIONS.get(provider, ())]
            return next((file for file in preferred if file in self.graph_files()), str(self.manifest["default_file"]))
        file = GRAPH_FILES[precision]
        if file not in self.manifest["files"]:
            raise ArtefactError(
                f"{self.folder}: has no {precision} graph ({file}), only {', '.join(self.graph_files())}"
            )
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
        data = _read_regular_file(path, listed["bytes"])
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


def find_artefacts(models_folder: Path) -> list[Path]:
    """Return the folders that hold a manifest, by name; hidden ones, where writers work, are left out."""
    try:
        if not models_folder.is_dir():
            raise ArtefactError(f"{models_folder}: no such folder")
        entries = sorted(models_folder.iterdir())
        return [entry for entry in entries if not entry.name.startswith(".") and _exists(entry / MANIFEST_FILE)]
    except OSError as error:
        raise ArtefactError(f"{error.filename}: cannot be read: {error.strerror}") from error


def read_artefact(folder: Path) -> Artefact:
    """Read and verify one artefact; raises ArtefactError with one line that says what does not match."""
    try:
        mode = folder.lstat().st_mode
    except OSError as error:
        raise ArtefactError(f"{folder}: cannot be read: {error.strerror}") from error
    if stat.S_ISLNK(mode):
        raise ArtefactError(f"{folder}: is a symbolic link; put the folder itself there")
    if not stat.S_ISDIR(mode):
        raise ArtefactError(f"{folder}: not a folder")
    path = folder / MANIFEST_FILE
    manifest = _parse_object(path, _read_regular_file(path, MAX_MANIFEST_BYTES))
    check_manifest(path, manifest)
    name = folder.resolve().name if folder.name in ("", "..") else folder.name
    if manifest["name"] != name:
        raise ArtefactError(f"{path}: says name {manifest['name']!r} but the folder is {name!r}")
    if "files" in manifest and manifest["default_file"] not in manifest["files"]:
        raise ArtefactError(f"{path}: default_file {manifest['default_file']!r} is not among its files")
    counted = manifest.get("evaluation", {}).get("distributions", manifest)["labels"]
    if len(counted) != len(manifest["labels"]):
        raise ArtefactError(
            f"{path}: evaluation.distributions counts {len(counted)} labels of {len(manifest['labels'])}"
        )
    for file, listed in manifest.get("files", {}).items():
        _check_file(folder / stored_name(file, listed), listed["bytes"], listed["sha256"])
    try:
        return artefact_of(folder, manifest)
    except ValueError as error:
        raise ArtefactError(f"{path}: {error}") from error


def artefact_of(folder: Path, manifest: dict[str, Any]) -> Artefact:
    """Return the artefact that a manifest describes, which fits the schema; no file is read."""
    return Artefact(
        folder=folder,
        manifest=manifest,
        name=manifest["name"],
        aliases=tuple(manifest.get("aliases", ())),
        version=manifest["version"],
        task=manifest["task"],
        problem_type=manifest["problem_type"],
        labels=tuple(manifest["labels"]),
        max_length=manifest["max_length"],
        pad_token_id=manifest.get("pad_token_id"),
        inputs=tuple(manifest.get("inputs", ())),
        output=manifest.get("output", ""),
        temperature=float(manifest.get("calibration", {"temperature": 1.0})["temperature"]),
        stages=stages_of(manifest),
    )


def _exists(path: Path) -> bool:
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


@functools.cache
def _validator(file: str) -> jsonschema.Draft202012Validator:
    """Return a JSON Schema, which is part of this package, so that nothing else is trusted or fetched."""
    return jsonschema.Draft202012Validator(json.loads(resources.files(__package__).joinpath(file).read_bytes()))


def _parse_object(path: Path, data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data.decode("utf-8"), parse_constant=_refuse_constant, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise ArtefactError(f"{path}: not readable JSON: {error}") from error
    if not isinstance(value, dict):
        raise ArtefactError(f"{path}: not a JSON object")
    fault = _fault(value)
    if fault is not None:
        raise ArtefactError(f"{path}: ${fault}")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        twice = next(key for key, times in Counter(key for key, _ in pairs).items() if times > 1)
        raise ValueError(f"the key {twice!r} stands twice in one object; which one counts is not said")
    return value


def _fault(value: Any, depth: int = 0) -> str | None:
    """Return where and why a part of a manifest cannot be sent on as JSON, as in `.recipe.epochs: …`; None if it can.

    The schema bounds each field; this is for what it leaves open, as the recipe is.
    """
    if depth > MAX_DEPTH:
        return f": nested deeper than {MAX_DEPTH} levels"
    if isinstance(value, str):
        return None if _is_unicode(value) else ": holds half of a surrogate pair, which is no text; write it as UTF-8"
    if isinstance(value, int | float):
        return None if abs(value) <= LARGEST_NUMBER else f": numbers go up to {LARGEST_NUMBER}"
    children: Iterable[tuple[str, Any]] = ()
    if isinstance(value, dict):
        children = ((f".{key}", item) for key, item in value.items())
        if not all(map(_is_unicode, value)):
            return ": a key holds half of a surrogate pair, which is no text; write it as UTF-8"
    elif isinstance(value, list):
        children = ((f"[{index}]", item) for index, item in enumerate(value))
    for place, child in children:
        fault = _fault(child, depth + 1)
        if fault is not None:
            return place + fault
    return None


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_manifest(path: Path, manifest: dict[str, Any]) -> None:
    """Check a manifest against the schema.

    Raises ArtefactError for the first thing that does not fit, so that what is over a limit is looked at no more."""
    validator = _validator(CASCADE_SCHEMA_FILE if "cascade" in manifest else SCHEMA_FILE)
    first = next(validator.iter_errors(manifest), None)
    error = jsonschema.exceptions.best_match(() if first is None else (first,))
    if error is not None:
        message = error.message if len(error.message) <= 300 else error.message[:300] + "…"
        raise ArtefactError(f"{path}: {error.json_path}: {message}")


def _check_file(path: Path, size_bytes: int, sha256: str) -> None:
    digest = hashlib.sha256()
    with _open_regular_file(path) as file:
        found_bytes = os.fstat(file.fileno()).st_size
        if found_bytes != size_bytes:
            raise ArtefactError(f"{path}: has {found_bytes} bytes, {MANIFEST_FILE} says {size_bytes}")
        left_bytes = size_bytes + 1  # a file that grows meanwhile is not followed
        while left_bytes and (chunk := file.read(min(left_bytes, READ_CHUNK_BYTES))):
            digest.update(chunk)
            left_bytes -= len(chunk)
    if digest.hexdigest() != sha256:
        raise ArtefactError(f"{path}: its sha256 is not the one in {MANIFEST_FILE}")


def _read_regular_file(path: Path, max_bytes: int) -> bytes:
    with _open_regular_file(path) as file:
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise ArtefactError(f"{path}: has over {max_bytes} bytes; no more are read")
    return data


def _open_regular_file(path: Path) -> IO[bytes]:
    """Open without following a link and without waiting on a pipe: an artefact holds plain files only."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        reason = "is a symbolic link" if path.is_symlink() else f"cannot be read: {error.strerror}"
        raise ArtefactError(f"{path}: {reason}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ArtefactError(f"{path}: not a plain file")
    return os.fdopen(descriptor, "rb")
