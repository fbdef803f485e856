"""Changes a finished artefact: its files stored smaller or plain, or a graph for CUDA added."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx

from ladabert_compress.artefact.manifest import GRAPH_FILES, artefact_version
from ladabert_compress.artefact.reading import read_graph, read_manifest
from ladabert_compress.artefact.stored_file import read_stored, store, stored_name
from ladabert_compress.artefact.verification import check_half
from ladabert_compress.artefact.writing import rewrite_artefact
from ladabert_compress.errors import ExportError
from ladabert_compress.graph.half_precision import half_precision


def pack(folder: Path, *, plain: bool = False) -> dict[str, Any]:
    """Stores an artefact's files anew, as small as possible or ``plain``; their content stays, bit for bit.

    Name, version and every figure but the stored bytes stay, too.

    Returns:
        The manifest.

    Raises:
        ExportError: the folder is no artefact, a file is missing or changed, or the disk is full; nothing is changed.
    """
    manifest = read_manifest(folder)

    def store_anew(copy: Path) -> None:
        for name, entry in manifest["files"].items():
            (copy / stored_name(name, entry)).unlink()
            content = read_stored(folder, name, entry)
            kept = {key: entry[key] for key in ("precision",) if key in entry}
            manifest["files"][name] = {**kept, **store(copy, name, content, plain=plain)}
        manifest["compression"]["stored_bytes"] = manifest["files"][manifest["default_file"]]["bytes"]

    rewrite_artefact(folder, manifest, store_anew)
    return manifest


def add_fp16(folder: Path) -> dict[str, Any]:
    """Adds the fp16 graph to an artefact that has the fp32 one; the artefact gets a new version.

    Returns:
        The manifest.

    Raises:
        ExportError: no fp32 graph, fp16 computes something else, or the disk is full; nothing is changed.
    """
    manifest = read_manifest(folder)
    folder, files, name = folder.resolve(), manifest["files"], GRAPH_FILES["fp16"]
    if GRAPH_FILES["fp32"] not in files:
        raise ExportError(f"{folder}: has no {GRAPH_FILES['fp32']} to make fp16 of; compress with --precisions both")
    fp32 = onnx.load_from_string(read_graph(folder, manifest, GRAPH_FILES["fp32"]))
    try:
        fp16 = half_precision(fp32)
        check_half(fp32, fp16, manifest["max_length"], manifest["problem_type"])
    except ExportError as error:
        raise ExportError(f"{folder}: {error}") from error

    def add(copy: Path) -> None:
        if name in files:
            (copy / stored_name(name, files[name])).unlink()
        files[name] = {"precision": "fp16", **store(copy, name, fp16.SerializeToString())}
        manifest["version"] = artefact_version(files)

    rewrite_artefact(folder, manifest, add)
    return manifest
