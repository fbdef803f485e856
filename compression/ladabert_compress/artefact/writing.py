"""Writes an artefact's folder, or puts a changed one in its place: whole or not at all."""

from __future__ import annotations

import contextlib
import datetime
import json
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer

from ladabert_compress.artefact.card import CARD_FILE, model_card
from ladabert_compress.artefact.manifest import (
    GRAPH_FILES,
    MANIFEST_FILE,
    TOKENIZER_FILE,
    artefact_version,
    read_schema,
    validate_manifest,
)
from ladabert_compress.artefact.stored_file import store
from ladabert_compress.errors import ExportError
from ladabert_compress.files import cannot_be_written

if TYPE_CHECKING:  # which takes half a second to load, and a wrong --out is to be refused at once
    import onnx

PRODUCERS = ("ladabert", "torch", "transformers", "onnx", "onnxruntime")


def check_out(out: Path) -> None:
    """Checks before a long run that an artefact can be written to ``out``.

    Raises:
        ExportError: the name cannot be a model's, or something else stands there.
    """
    pattern = read_schema()["properties"]["name"]["pattern"]
    if not re.fullmatch(pattern, out.name):
        raise ExportError(f"--out: {out.name!r} cannot be a model's name; use letters, digits, '.', '_' and '-'")
    if out.exists() and not (out / MANIFEST_FILE).is_file():
        raise ExportError(f"--out: {out} exists and is no artefact that could be replaced; name another folder")


@contextlib.contextmanager
def written_whole(out: Path) -> Iterator[Path]:
    """A folder with a temporary name beside ``out``, which takes its place at the end; after an error, nothing does."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as temporary:
        partial = Path(temporary) / out.name
        partial.mkdir()
        yield partial
        _replace(out, partial)


def now() -> str:
    """The time, as manifests have it."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def write_artefact(
    out: Path, graphs: Mapping[str, onnx.ModelProto], tokenizer: Tokenizer, fields: Mapping[str, Any]
) -> dict[str, Any]:
    """Writes ``out`` under a temporary name, validates the manifest, and renames it into place.

    Args:
        out: the artefact's folder; its name is the model's name.
        graphs: precision (``fp32``, ``int8``, ``fp16``) to graph, the default first.
        tokenizer: written without truncation and padding.
        fields: the manifest's fields that do not follow from the files.

    Returns:
        The manifest.

    Raises:
        ExportError: the manifest does not fit its schema, or the disk is full; nothing is left behind.
    """
    plain = Tokenizer.from_str(tokenizer.to_str())
    plain.no_truncation()
    plain.no_padding()
    try:
        with written_whole(out) as partial:
            files: dict[str, dict[str, Any]] = {
                name: {"precision": precision, **store(partial, name, graph.SerializeToString())}
                for precision, graph in graphs.items()
                for name in (GRAPH_FILES[precision],)
            }
            files[TOKENIZER_FILE] = store(partial, TOKENIZER_FILE, plain.to_str().encode(), plain=True)
            default_file = GRAPH_FILES[next(iter(graphs))]
            manifest = {
                "schema_version": 1,
                "name": out.name,
                "version": artefact_version(files),
                "created_at": now(),
                **fields,
                "default_file": default_file,
                "files": files,
                "produced_by": {name: metadata.version(name) for name in PRODUCERS},
            }
            manifest["compression"] = {**manifest["compression"], "stored_bytes": files[default_file]["bytes"]}
            _write_manifest(partial, manifest)
            (partial / CARD_FILE).write_text(model_card(manifest), encoding="utf-8")
    except OSError as error:
        raise ExportError(cannot_be_written(out, error)) from error
    return manifest


def rewrite_artefact(folder: Path, manifest: Mapping[str, Any], change: Callable[[Path], None]) -> None:
    """Replaces an artefact in one step by a copy of it that ``change`` has changed, and manifest and card with it.

    A card that somebody has edited stays as it is.

    Raises:
        ExportError: the manifest does not fit its schema, or the disk is full; nothing is changed.
    """
    folder = folder.resolve()
    try:
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as temporary:
            copy = Path(temporary) / folder.name
            shutil.copytree(folder, copy)
            change(copy)
            card, before = copy / CARD_FILE, json.loads((copy / MANIFEST_FILE).read_text(encoding="utf-8"))
            _write_manifest(copy, manifest)
            if not card.is_file() or card.read_text(encoding="utf-8") == model_card(before):
                card.write_text(model_card(manifest), encoding="utf-8")
            _replace(folder, copy)
    except OSError as error:
        raise ExportError(f"{folder}: cannot be written ({error.strerror}); nothing was changed") from error


def _write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    validate_manifest(manifest)
    (folder / MANIFEST_FILE).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def _replace(out: Path, partial: Path) -> None:
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
