"""Reads an artefact's folder: every file has to have the sum that the manifest says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from ladabert_compress.artefact.manifest import MANIFEST_FILE, TOKENIZER_FILE, validate_manifest
from ladabert_compress.artefact.stored_file import is_stored, read_stored, stored_name
from ladabert_compress.errors import ExportError


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of an artefact whose files all have the sums that it says.

    Raises:
        ExportError: the folder is no artefact, or a file is missing or changed.
    """
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ExportError(f"{folder}: no readable {MANIFEST_FILE} there; expected models/NAME") from error
    if isinstance(manifest, dict) and "cascade" in manifest:
        raise ExportError(f"{folder}: is a cascade, which has no graph of its own; name artefacts that have one")
    validate_manifest(manifest)
    for name, entry in manifest["files"].items():
        if not is_stored(folder, name, entry):
            raise ExportError(
                f"{folder / stored_name(name, entry)}: is not the file that the manifest describes; export it again"
            )
    return manifest


def read_tokenizer(folder: Path, manifest: Mapping[str, Any]) -> Tokenizer:
    """An artefact's tokenizer, however it is stored.

    Raises:
        ExportError: the file cannot be decoded to what the manifest describes.
    """
    content = read_stored(folder, TOKENIZER_FILE, manifest["files"][TOKENIZER_FILE])
    return Tokenizer.from_str(content.decode("utf-8"))


def read_graphs(folder: Path, manifest: Mapping[str, Any]) -> dict[str, bytes]:
    """Every ONNX graph of an artefact by its file's name.

    Raises:
        ExportError: one is not what the manifest describes.
    """
    return {name: read_graph(folder, manifest, name) for name in manifest["files"] if name != TOKENIZER_FILE}


def read_graph(folder: Path, manifest: Mapping[str, Any], name: str) -> bytes:
    """The ONNX graph ``name`` of an artefact, however it is stored.

    Raises:
        ExportError: it is not what the manifest describes.
    """
    return read_stored(folder, name, manifest["files"][name])
