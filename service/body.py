"""A request's body: declared as JSON, UTF-8, JSON."""

import json
from collections.abc import Mapping
from typing import Any, NoReturn

from pydantic_core import from_json

from service.errors import NotJsonError, UnsupportedMediaError


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
    if headers.get(b"content-encoding", b"").strip().lower() not in (b"", b"identity"):
        raise UnsupportedMediaError("send the body without content-encoding")


def parse_json(body: bytes) -> Any:
    """Return the JSON value; raises NotJsonError. NaN and Infinity, which JSON does not know, are refused."""
    try:
        return from_json(body, allow_inf_nan=False)
    except ValueError:
        return _parse_slowly(body)


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
