"""Tensors of the Open Inference Protocol: texts as BYTES and scores as FP32, in JSON or in binary after it."""

import re
import struct
from collections.abc import Sequence
from typing import Any

from ladabert_serve.errors import FieldError, InvalidRequestError

HEADER_LENGTH = "Inference-Header-Content-Length"
LENGTH = struct.Struct("<I")  # before each BYTES element: how many bytes it has
PLAIN_NUMBER = re.compile(r"[0-9]{1,10}")


def split_body(body: bytes, header_length: str) -> tuple[bytes, bytes]:
    """Return a body's JSON and the binary data after it; an empty `header_length` means that all of it is JSON.

    Raises InvalidRequestError.
    """
    if not header_length:
        return body, b""
    if not PLAIN_NUMBER.fullmatch(header_length):
        raise refusal(HEADER_LENGTH, "must be the number of bytes that the JSON has")
    size = int(header_length)
    if size > len(body):
        raise refusal(HEADER_LENGTH, f"says that the JSON has {size} bytes, the body has {len(body)}")
    return body[:size], body[size:]


class BinaryData:
    """The binary data after the JSON, which the tensors take part by part in their order."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, size: int, path: str) -> bytes:
        """Return the next `size` bytes for the tensor at `path`; raises InvalidRequestError."""
        left = len(self._data) - self._at
        if size > left:
            detail = f"announces {size} bytes of binary data, {left} are left in the body"
            without_header = "" if self._data else f"; {HEADER_LENGTH} has to say where the JSON ends"
            raise refusal(path, detail + without_header)
        part = self._data[self._at : self._at + size]
        self._at += size
        return part

    def check_end(self) -> None:
        """Raise InvalidRequestError unless the tensors took everything."""
        left = len(self._data) - self._at
        if left:
            raise refusal("the body", f"has {left} bytes of binary data that belong to no tensor")


def unpack_texts(data: bytes, count: int, path: str) -> list[str]:
    """Return the texts of a BYTES tensor with so many elements; raises InvalidRequestError."""
    texts: list[str] = []
    at = 0
    for index in range(count):
        begin = at + LENGTH.size
        if begin > len(data):
            raise refusal(path, f"ends before the length of element {index}; its shape says {count} elements")
        at = begin + LENGTH.unpack_from(data, at)[0]
        if at > len(data):
            raise refusal(path, f"says that element {index} has {at - begin} bytes, {len(data) - begin} are left")
        try:
            texts.append(data[begin:at].decode())
        except UnicodeDecodeError as error:
            raise refusal(path, f"has an element {index} that is not UTF-8: {error.reason}") from error
    if at < len(data):
        raise refusal(path, f"has {len(data) - at} bytes after its {count} elements")
    return texts


def flatten_texts(data: Sequence[Any], shape: Sequence[int], path: str) -> list[str]:
    """Return the texts of a JSON tensor of shape [n] or [n, 1], flat or nested; raises InvalidRequestError."""
    if len(data) != shape[0]:
        raise refusal(path, f"has {len(data)} elements, its shape says {shape[0]}")
    rows_allowed = len(shape) == 2
    texts: list[str] = []
    for index, element in enumerate(data):
        is_row = rows_allowed and isinstance(element, list) and len(element) == 1
        text = element[0] if is_row else element
        if not isinstance(text, str):
            raise refusal(f"{path}[{index}]", "must be a text")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise refusal(f"{path}[{index}]", "is not valid Unicode: an unpaired surrogate") from error
        texts.append(text)
    return texts


def pack_texts(texts: Sequence[str]) -> bytes:
    """Return a BYTES tensor: each element after its length."""
    elements = [text.encode() for text in texts]
    return b"".join(LENGTH.pack(len(element)) + element for element in elements)


def pack_floats(values: Sequence[float]) -> bytes:
    """Return an FP32 tensor, little-endian."""
    return struct.pack(f"<{len(values)}f", *values)


def refusal(path: str, message: str) -> InvalidRequestError:
    """Return the error for one field of a request."""
    return InvalidRequestError([FieldError(path, message)])
