"""How a file of an artefact is stored: as it is, or as gzip where most weights are zero and that saves bytes."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ladabert_compress.errors import ExportError

GZIP_SUFFIX = ".gz"
# Gzip has to save at least this share: a plain file can be opened by every tool.
SMALLEST_SAVING = 0.1


def store(folder: Path, name: str, data: bytes, *, plain: bool = False) -> dict[str, Any]:
    """Writes ``data`` to ``folder`` under ``name``, or as ``name.gz`` where that saves a tenth or more.

    Returns:
        The manifest's entry: bytes and sha256 of what lies on disk, and of what it decodes to.
    """
    packed = data if plain else packed_if_smaller(data)
    if packed is data:
        (folder / name).write_bytes(data)
        return _sum(data)
    (folder / (name + GZIP_SUFFIX)).write_bytes(packed)
    decoded = _sum(data)
    return {
        **_sum(packed),
        "encoding": "gzip",
        "decoded_bytes": decoded["bytes"],
        "decoded_sha256": decoded["sha256"],
    }


def packed_if_smaller(data: bytes) -> bytes:
    """The data as gzip where that saves a tenth or more, else itself."""
    packed = _gzip(data)
    return data if len(packed) > (1 - SMALLEST_SAVING) * len(data) else packed


def stored_name(name: str, entry: Mapping[str, Any]) -> str:
    """The file on disk that holds the manifest's file ``name``."""
    return name + GZIP_SUFFIX if entry.get("encoding") == "gzip" else name


def content_sha256(entry: Mapping[str, Any]) -> str:
    """The sum of the content, however it is stored."""
    return str(entry.get("decoded_sha256", entry["sha256"]))


def is_stored(folder: Path, name: str, entry: Mapping[str, Any]) -> bool:
    """Whether the file on disk is the one that the entry describes; it is not decoded."""
    path = folder / stored_name(name, entry)
    return path.is_file() and _sum(path.read_bytes()) == {"bytes": entry["bytes"], "sha256": entry["sha256"]}


def read_stored(folder: Path, name: str, entry: Mapping[str, Any]) -> bytes:
    """The content of the manifest's file ``name``; never decodes to more than the manifest says.

    Raises:
        ExportError: it cannot be decoded, or to something else.
    """
    path = folder / stored_name(name, entry)
    data = path.read_bytes()
    if "encoding" in entry:
        decoder = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
        try:
            data = decoder.decompress(data, entry["decoded_bytes"] + 1)
        except zlib.error as error:
            raise ExportError(f"{path}: not gzip ({error}); export it again") from error
    if _sum(data) != {"bytes": entry.get("decoded_bytes", entry["bytes"]), "sha256": content_sha256(entry)}:
        raise ExportError(f"{path}: its content is not what the manifest describes; export it again")
    return data


def _gzip(data: bytes) -> bytes:
    """One gzip member; int8 weights among zeros repeat little, so few and long matches cost the fewest bytes."""
    packer = zlib.compressobj(9, wbits=16 + zlib.MAX_WBITS, memLevel=9, strategy=zlib.Z_FILTERED)
    return packer.compress(data) + packer.flush()


def _sum(data: bytes) -> dict[str, Any]:
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
