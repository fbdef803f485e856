"""What every request goes through before its route: an id, and bounds on its body."""

import asyncio
import logging
import random
import re
from collections.abc import Mapping

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import QueueFullError, TooLargeError
from service.problem import unexpected_problem
from service.settings import Settings

logger = logging.getLogger(__name__)

SANE_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
SMALL_BODY_BYTES = 16384
SHARE_OF_LARGE_BODIES = 0.75  # of the bytes in flight; small bodies have the rest for themselves
LINGER_S = 10.0  # in which the rest of a refused body is read, so that its caller gets to read the answer
LINGER_BYTES = 1 << 30
_source = random.Random()  # noqa: S311 - ids need to differ, not to be secret; no system call each


def new_request_id() -> str:
    """Return a new id of 32 hexadecimal digits."""
    return f"{_source.getrandbits(128):032x}"


def request_id_of(headers: Mapping[bytes, bytes]) -> str:
    """Return the caller's `x-request-id` if it is sane, else a new one."""
    offered = headers.get(b"x-request-id", b"").decode("latin-1")
    return offered if SANE_REQUEST_ID.fullmatch(offered) else new_request_id()


class RequestIdMiddleware:
    """Puts the request's id into its state and on its answer, and turns a bug into a 500 that carries it."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; a bug is logged and answered 500 if nothing was sent before."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = request_id_of(dict(scope["headers"]))
        scope.setdefault("state", {})["request_id"] = request_id
        started = False

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id.encode())]
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        except Exception:
            logger.exception("a bug in request %s", request_id)
            if started:
                raise
            await unexpected_problem(request_id)(scope, receive, send_with_id)


class BodyMiddleware:
    """Bounds each body and the bytes of all bodies together; `receive` raises RequestError where a bound is passed.

    An answer that is sent before the body was read to its end is complete only when the rest was read and thrown away:
    a socket that is closed with unread bytes resets the connection, and the answer is lost with it.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self._limit_bytes = settings.max_body_bytes
        self._limit_in_flight = settings.max_bytes_in_flight
        self._in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with what it receives bounded."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        size_bytes = 0
        is_complete = False

        async def receive_bounded() -> Message:
            nonlocal size_bytes, is_complete
            if size_bytes == 0:
                self._check_declared(scope)
            message = await receive()
            if message["type"] == "http.disconnect":
                is_complete = True
                return message
            is_complete = not message.get("more_body", False)
            added = len(message.get("body", b""))
            if size_bytes + added > self._limit_bytes:
                raise TooLargeError("the body", size_bytes + added, self._limit_bytes, "bytes or more")
            self._check_in_flight(size_bytes, added)
            size_bytes += added
            self._in_flight += added
            return message

        async def send_lingering(message: Message) -> None:
            nonlocal is_complete
            if is_complete or not _declares_body(scope):
                await send(message)
            elif message["type"] == "http.response.start":
                if size_bytes == 0 and b"expect" in dict(scope["headers"]):  # the body may never come
                    message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
                await send(message)
            elif message.get("more_body", False):
                await send(message)
            else:
                await send({**message, "more_body": True})
                await _discard(receive)
                is_complete = True
                await send({"type": "http.response.body", "body": b"", "more_body": False})

        try:
            await self.app(scope, receive_bounded, send_lingering)
        finally:
            self._in_flight -= size_bytes

    def _check_declared(self, scope: Scope) -> None:
        for name, value in scope["headers"]:
            if name == b"content-length" and int(value) > self._limit_bytes:  # the parser lets digits through only
                raise TooLargeError("the body", int(value), self._limit_bytes, "bytes")

    def _check_in_flight(self, size_bytes: int, added: int) -> None:
        is_small = size_bytes + added <= SMALL_BODY_BYTES
        limit = self._limit_in_flight * (1 if is_small else SHARE_OF_LARGE_BODIES)
        if self._in_flight + added > limit and self._in_flight > size_bytes:
            raise QueueFullError(f"the bodies of other requests hold {self._in_flight - size_bytes} bytes already", 0)


def _declares_body(scope: Scope) -> bool:
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value != b"0")
        for name, value in scope["headers"]
    )


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
