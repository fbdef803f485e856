"""How a file of an artefact lies on disk, as it is or as gzip, and decoding it without trusting it."""

import zlib
from collections.abc import Mapping
from typing import Any

from ladabert_serve.errors import ArtefactError

GZIP_SUFFIX = ".gz"


def stored_name(name: str, listed: Mapping[str, Any]) -> str:
    """Return the file on disk that holds the manifest's file `name`."""
    return name + GZIP_SUFFIX if "encoding" in listed else name


def gunzip(data: bytes, size_bytes: int) -> bytes:
    """Return what one gzip member decodes to; raises ArtefactError unless it is `size_bytes`, and decodes no more."""
    decoder = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    try:
        decoded = decoder.decompress(data, size_bytes + 1)
    except zlib.error as error:
        raise ArtefactError(f"not gzip: {error}") from error
    if len(decoded) > size_bytes:
        raise ArtefactError(f"decodes to more than the {size_bytes} bytes that the manifest says")
    if not decoder.eof:
        raise ArtefactError(f"breaks off after {len(decoded)} decoded bytes, the manifest says {size_bytes}")
    if len(decoded) < size_bytes or decoder.unused_data:
        raise ArtefactError(
            f"decodes to {len(decoded)} bytes, then {len(decoder.unused_data)} more follow; not {size_bytes}"
        )
    return decoded
