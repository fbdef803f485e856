"""One HTTP request to an inference route, straight from ASGI: its id, its body, its caller, its answer."""

import asyncio
import random
import re
import time
from collections.abc import Callable, Mapping
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.errors import CallerLeftError, DeadlineExceededError, TooLargeError
from service.metrics import UNKNOWN_MODEL
from service.model import ModelTicket

LINGER_S = 10.0
LINGER_BYTES = 1 << 30
BODY = "ladabert.body"  # in the ASGI scope of a request that came in one piece: its body
HANG_UPS = "ladabert.hang_ups"  # ASGI extension: a set of functions to call when the caller hangs up
_source = random.Random()  # noqa: S311 - ids need to differ, not to be secret; no system call each
SANE_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


def request_id_of(headers: Mapping[bytes, bytes]) -> str:
    """Return the caller's `x-request-id` if it is sane, else a new one."""
    offered = headers.get(b"x-request-id", b"").decode("latin-1")
    return offered if SANE_REQUEST_ID.fullmatch(offered) else f"{_source.getrandbits(128):032x}"


class Call:
    """A request and its caller; the route sets `model` as soon as it knows which served model is meant."""

    __slots__ = (
        "_alarm",
        "_body",
        "_hang_up_watch",
        "_hang_ups",
        "_late",
        "_left",
        "_reading",
        "_receive",
        "_send",
        "_too_late_to_read",
        "body_complete",
        "deadline",
        "headers",
        "model",
        "path",
        "request_id",
        "started_at",
        "ticket",
    )

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.started_at = time.monotonic()
        self.path: str = scope["path"]
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.request_id = request_id_of(self.headers)
        self.model = UNKNOWN_MODEL
        self._body: bytes | None = scope.get(BODY)
        self.body_complete = self._body is not None
        self.ticket: ModelTicket | None = None  # once admitted; its times are those of the steps
        self._receive = receive
        self._send = send
        self._hang_ups: set[Callable[[], None]] | None = scope.get("extensions", {}).get(HANG_UPS)
        self.deadline = float("inf")  # on the monotonic clock
        self._alarm: asyncio.TimerHandle | None = None
        self._reading: asyncio.Task[Any] | None = None
        self._too_late_to_read = False
        self._left: Callable[[], None] | None = None
        self._late: Callable[[], None] | None = None
        self._hang_up_watch: asyncio.Task[None] | None = None

    @property
    def elapsed_s(self) -> float:
        """Seconds since the request's headers were read."""
        return time.monotonic() - self.started_at

    def header(self, name: bytes) -> str:
        """Return a header's value, empty where there is none."""
        return self.headers.get(name, b"").decode("latin-1")

    def set_deadline(self, timeout_s: float) -> None:
        """Let the call be late `timeout_s` after its headers were read; replaces an earlier deadline."""
        self.deadline = self.started_at + timeout_s
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = asyncio.get_running_loop().call_later(self.deadline - time.monotonic(), self._expire)

    def _expire(self) -> None:
        if self._late is not None:
            self._late()
        elif self._reading is not None:
            self._too_late_to_read = True
            self._reading.cancel()

    async def read_body(self, limit_bytes: int) -> bytes:
        """Return the body; raises TooLargeError as soon as it is known, CallerLeftError on a hang-up.

        A body that is not there by the deadline raises DeadlineExceededError.
        """
        declared = self.header(b"content-length")
        if declared.isdecimal() and len(declared) < 20 and int(declared) > limit_bytes:
            raise TooLargeError("the body", int(declared), limit_bytes, "bytes")
        if self._body is not None:
            if len(self._body) > limit_bytes:
                raise TooLargeError("the body", len(self._body), limit_bytes, "bytes")
            return self._body
        self._reading = asyncio.current_task()
        assert self._reading is not None
        try:
            return await self._read_body(limit_bytes)
        except asyncio.CancelledError:
            if self._too_late_to_read and self._reading.uncancel() == 0:
                raise DeadlineExceededError from None
            raise
        finally:
            self._reading = None

    async def _read_body(self, limit_bytes: int) -> bytes:
        chunks: list[bytes] = []
        size_bytes = 0
        while not self.body_complete:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise CallerLeftError
            self.body_complete = not message.get("more_body", False)
            chunk = message.get("body", b"")
            size_bytes += len(chunk)
            if size_bytes > limit_bytes:
                raise TooLargeError("the body", size_bytes, limit_bytes, "bytes or more")
            chunks.append(chunk)
        return b"".join(chunks)

    def admitted(self, ticket: ModelTicket, left: Callable[[], None], late: Callable[[], None]) -> None:
        """Remember the ticket; until `forget`, call `left` when the caller hangs up and `late` at the deadline."""
        self.ticket = ticket
        self._left = left
        self._late = late
        if self._hang_ups is not None:
            self._hang_ups.add(left)
        else:  # a server without the extension
            self._hang_up_watch = asyncio.ensure_future(self._wait_for_hang_up(left))

    async def _wait_for_hang_up(self, left: Callable[[], None]) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        left()

    def forget(self) -> None:
        """Do not care any more whether the caller hangs up or the deadline passes."""
        if self._alarm is not None:
            self._alarm.cancel()
        if self._hang_ups is not None and self._left is not None:
            self._hang_ups.discard(self._left)
        if self._hang_up_watch is not None:
            self._hang_up_watch.cancel()
            self._hang_up_watch = None  # the task knows this call: a cycle would wait for the garbage collector

    async def answer(self, body: bytes) -> None:
        """Send a 200 with a JSON body."""
        headers = [
            (b"content-length", b"%d" % len(body)),
            (b"content-type", b"application/json"),
            (b"x-request-id", self.request_id.encode()),
        ]
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})

    async def answer_problem(self, response: Response) -> None:
        """Send another answer; when the body was not read to its end, read it, so that the caller sees the answer.

        Closing a socket with unread bytes resets the connection, and the answer is lost with it. What is read
        here is thrown away; after LINGER_S or LINGER_BYTES the connection is closed all the same.
        """
        response.headers["x-request-id"] = self.request_id
        if not self.body_complete:
            response.headers["connection"] = "close"
        headers = response.raw_headers
        await self._send({"type": "http.response.start", "status": response.status_code, "headers": headers})
        await self._send({"type": "http.response.body", "body": response.body, "more_body": not self.body_complete})
        if not self.body_complete:
            await self._discard_body()
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _discard_body(self) -> None:
        size_bytes = 0
        try:
            async with asyncio.timeout(LINGER_S):
                while size_bytes < LINGER_BYTES:
                    message = await self._receive()
                    if message["type"] == "http.disconnect" or not message.get("more_body", False):
                        return
                    size_bytes += len(message.get("body", b""))
        except TimeoutError:
            return
