"""A request's body: declared as JSON, within the limit while it streams in, UTF-8, JSON."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any, NoReturn

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.errors import CallerLeftError, DeadlineExceededError, NotJsonError, TooLargeError, UnsupportedMediaError

LINGER_S = 10.0
LINGER_BYTES = 1 << 30


def check_content_type(headers: Mapping[str, str]) -> None:
    """Raise UnsupportedMediaError unless the body is declared as plain UTF-8 JSON."""
    media_type, *parameters = headers.get("content-type", "").split(";")
    if media_type.strip().lower() != "application/json":
        raise UnsupportedMediaError("send the body as content-type: application/json")
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset" and value.strip().strip('"').lower() not in ("utf-8", "utf8"):
            raise UnsupportedMediaError("send the JSON as UTF-8")
    if headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise UnsupportedMediaError("send the body without content-encoding")


class BodyReader:
    """Reads one request's body; `complete` tells whether its last byte was received."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self.complete = False

    async def read(self, limit_bytes: int, timeout_s: float) -> bytes:
        """Return the body; raises TooLargeError as soon as it is known, CallerLeftError on a hang-up.

        A body that is not there in time raises DeadlineExceededError.
        """
        try:
            async with asyncio.timeout(timeout_s):
                return await self._read(limit_bytes)
        except TimeoutError as error:
            raise DeadlineExceededError from error

    async def _read(self, limit_bytes: int) -> bytes:
        declared = self._request.headers.get("content-length", "")
        if declared.isdecimal() and len(declared) < 20 and int(declared) > limit_bytes:
            raise TooLargeError("the body", int(declared), limit_bytes, "bytes")
        chunks: list[bytes] = []
        size_bytes = 0
        while not self.complete:
            message = await self._request.receive()
            if message["type"] == "http.disconnect":
                raise CallerLeftError
            self.complete = not message.get("more_body", False)
            chunk = message.get("body", b"")
            size_bytes += len(chunk)
            if size_bytes > limit_bytes:
                raise TooLargeError("the body", size_bytes, limit_bytes, "bytes or more")
            chunks.append(chunk)
        return b"".join(chunks)


def parse_json(body: bytes) -> Any:
    """Return the JSON value; raises NotJsonError. NaN and Infinity, which JSON does not know, are refused."""
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


class LingeringResponse(Response):
    """Sends a response before the body was read, and reads the rest so that the caller sees the response.

    Closing a socket with unread bytes resets the connection, and the response is lost with it. What is read
    here is thrown away; after LINGER_S or LINGER_BYTES the connection is closed all the same.
    """

    def __init__(self, response: Response) -> None:
        super().__init__(response.body, response.status_code, response.headers)
        self.headers["connection"] = "close"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Send, linger, finish."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        await _discard(receive)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _discard(receive: Receive) -> None:
    size_bytes = 0
    try:
        async with asyncio.timeout(LINGER_S):
            while size_bytes < LINGER_BYTES:
                message = await receive()
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return
                size_bytes += len(message.get("body", b""))
    except TimeoutError:
        return
