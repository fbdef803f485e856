"""What every request goes through before its route: an id, bounds on its body, and an answer to bugs."""

import asyncio
import contextlib
import logging
import random
import re
from collections.abc import Mapping

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ladabert_serve.errors import QueueFullError, TooLargeError
from ladabert_serve.http.problem import routing_problem, unexpected_problem
from ladabert_serve.settings import Settings

logger = logging.getLogger(__name__)

SANE_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
SMALL_BODY_BYTES = 16384
SHARE_OF_LARGE_BODIES = 0.75  # of the bytes in flight; small bodies have the rest for themselves
LINGER_S = 10.0  # to read the rest of a refused body; a caller that cannot send it would not read the answer
LINGER_BYTES = 1 << 30
DISCARDED_AT_ONCE = 8  # bodies; the rest wait in the kernel
_source = random.Random()  # noqa: S311 - ids need to differ, not to be secret; no system call each


def new_request_id() -> str:
    """Return a new id of 32 hexadecimal digits."""
    return f"{_source.getrandbits(128):032x}"


def request_id_of(headers: Mapping[bytes, bytes]) -> str:
    """Return the caller's `x-request-id` if it is sane, else a new one."""
    offered = headers.get(b"x-request-id", b"").decode("latin-1")
    return offered if SANE_REQUEST_ID.fullmatch(offered) else new_request_id()


class RequestMiddleware:
    """What every request goes through: it gets an id, its body is bounded, and a bug is a 500 that carries the id."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self.max_body_bytes = settings.max_body_bytes
        self.max_bytes_in_flight = settings.max_bytes_in_flight
        self.bytes_in_flight = 0
        self.discarding = asyncio.Semaphore(DISCARDED_AT_ONCE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; a bug is logged and answered 500 if nothing was sent before."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        exchange = _Exchange(self, scope, receive, send)
        scope.setdefault("state", {})["request_id"] = exchange.request_id
        try:
            await self.app(scope, exchange.receive, exchange.send)
        except HTTPException as error:
            await routing_problem(Request(scope), error)(scope, receive, exchange.send)
        except Exception:
            logger.exception("a bug in request %s", exchange.request_id)
            if exchange.started:
                raise
            await unexpected_problem(exchange.request_id)(scope, receive, exchange.send)
        finally:
            self.bytes_in_flight -= exchange.size_bytes


class _Exchange:
    """One request's messages in both directions; `receive` raises RequestError where a bound is passed.

    An answer sent before the end of the body is completed only after the rest of the body was read and discarded:
    closing a socket with unread bytes resets the connection, and the caller loses the answer.
    """

    started = False  # the answer
    size_bytes = 0  # of the body, so far

    def __init__(self, bounds: RequestMiddleware, scope: Scope, receive: Receive, send: Send) -> None:
        self._bounds = bounds
        self._headers = dict(scope["headers"])
        self._receive = receive
        self._send = send
        self._has_more = b"transfer-encoding" in self._headers or self._declared_bytes > 0
        self.request_id = request_id_of(self._headers)

    @property
    def _declared_bytes(self) -> int:
        return int(self._headers.get(b"content-length", b"0"))  # the parser lets digits through only

    async def receive(self) -> Message:
        """Return the next part of the body."""
        bounds = self._bounds
        if self.size_bytes == 0 and self._declared_bytes > bounds.max_body_bytes:
            raise TooLargeError("the body", self._declared_bytes, bounds.max_body_bytes, "bytes")
        message = await self._receive()
        self._has_more = message.get("more_body", False)
        added = len(message.get("body", b""))
        size_bytes = self.size_bytes + added
        if size_bytes > bounds.max_body_bytes:
            raise TooLargeError("the body", size_bytes, bounds.max_body_bytes, "bytes or more")
        of_others = bounds.bytes_in_flight - self.size_bytes
        share = 1 if size_bytes <= SMALL_BODY_BYTES else SHARE_OF_LARGE_BODIES
        if of_others > 0 and of_others + size_bytes > share * bounds.max_bytes_in_flight:
            raise QueueFullError(f"the bodies of other requests hold {of_others} bytes already", 0)
        self.size_bytes = size_bytes
        bounds.bytes_in_flight += added
        return message

    async def send(self, message: Message) -> None:
        """Send a part of the answer, the first with the request's id."""
        if message["type"] == "http.response.start":
            self.started = True
            headers = [*message["headers"], (b"x-request-id", self.request_id.encode())]
            if self._has_more and self.size_bytes == 0 and b"expect" in self._headers:  # the body may never come
                headers.append((b"connection", b"close"))
            message["headers"] = headers
        elif self._has_more and not message.get("more_body", False):
            await self._send({**message, "more_body": True})
            async with self._bounds.discarding:
                await _discard(self._receive)
            self._has_more = False
            message = {"type": "http.response.body", "body": b"", "more_body": False}
        await self._send(message)


async def _discard(receive: Receive) -> None:
    size_bytes = 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LINGER_S):
            while size_bytes < LINGER_BYTES:
                message = await receive()
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return
                size_bytes += len(message.get("body", b""))
