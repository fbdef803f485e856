"""A request's body: declared as JSON, UTF-8, JSON."""

import json
from collections.abc import Mapping
from typing import Any, NoReturn

from pydantic_core import from_json

from ladabert_serve.errors import NotJsonError, TooLargeError, UnsupportedMediaError

SMALL_BODY_BYTES = 16384  # takes no time to parse, whatever it holds
SMALL_STRING_BYTES = 16


def check_content_type(headers: Mapping[bytes, bytes]) -> None:
    """Raise UnsupportedMediaError unless the body is declared as plain UTF-8 JSON."""
    content_type = headers.get(b"content-type", b"")
    if content_type == b"application/json" and b"content-encoding" not in headers:
        return
    media_type, *parameters = content_type.decode("latin-1").split(";")
    if media_type.strip().lower() != "application/json":
        raise UnsupportedMediaError("send the body as content-type: application/json")
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset" and value.strip().strip('"').lower() not in ("utf-8", "utf8"):
            raise UnsupportedMediaError("send the JSON as UTF-8")
    check_not_compressed(headers)


def check_not_compressed(headers: Mapping[bytes, bytes]) -> None:
    """Raise UnsupportedMediaError if the body is declared as compressed."""
    if headers.get(b"content-encoding", b"").strip().lower() not in (b"", b"identity"):
        raise UnsupportedMediaError("send the body without content-encoding")


def parse_json(body: bytes, max_values: int) -> Any:
    """Return the JSON value; raises NotJsonError, and TooLargeError when it holds more values than that.

    NaN and Infinity, which JSON does not know, are refused.
    """
    values = _count_values(body)
    if values > max_values:
        raise TooLargeError("the body", values, max_values, "JSON values")
    try:
        return from_json(body, allow_inf_nan=False)
    except ValueError:
        return _parse_slowly(body)


def _count_values(body: bytes) -> int:
    """Return an upper bound of the values in a JSON text, without parsing: two megabytes of `{}` take a millisecond.

    Outside of strings each value but the first follows a comma, a colon or an opening bracket.
    """
    if len(body) <= SMALL_BODY_BYTES:
        return 0
    body = body.replace(rb"\\", b"").replace(rb"\"", b"")
    strings = body.count(b'"') // 2
    if strings * SMALL_STRING_BYTES > len(body):
        return strings
    outside = b"".join(body.split(b'"')[::2])
    return sum(map(outside.count, (b",", b":", b"[", b"{"))) + 1


def _parse_slowly(body: bytes) -> Any:
    """Parse what the fast parser refuses: unpaired surrogates, which are valid JSON, and what needs a good message."""
    try:
        return json.loads(body.decode("utf-8"), parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise NotJsonError(f"the body is not UTF-8: {error.reason} at byte {error.start}") from error
    except RecursionError as error:
        raise NotJsonError("the body is nested too deeply") from error
    except ValueError as error:
        raise NotJsonError(f"the body is not JSON: {error}") from error


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")
