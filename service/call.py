"""One HTTP request to an inference route, straight from ASGI: its id, its body, its caller, its answer."""

import asyncio
import random
import re
import time
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Send

from service.direct import DirectCycle
from service.errors import CallerLeftError, DeadlineExceededError, TooLargeError
from service.metrics import UNKNOWN_MODEL
from service.model import ModelBatcher, ModelTicket

LINGER_S = 10.0
LINGER_BYTES = 1 << 30
HANG_UPS = "ladabert.hang_ups"  # ASGI extension: a set of calls to tell when the caller hangs up
_source = random.Random()  # noqa: S311 - ids need to differ, not to be secret; no system call each
SANE_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


def request_id_of(headers: Mapping[bytes, bytes]) -> str:
    """Return the caller's `x-request-id` if it is sane, else a new one."""
    offered = headers.get(b"x-request-id")
    if offered is not None:
        text = offered.decode("latin-1")
        if SANE_REQUEST_ID.fullmatch(text):
            return text
    return f"{_source.getrandbits(128):032x}"


class Call:
    """A request and its caller; the route sets `model` as soon as it knows which served model is meant."""

    model = UNKNOWN_MODEL
    deadline = float("inf")  # on the monotonic clock
    ticket: ModelTicket | None = None  # once admitted; its times are those of the steps
    _batcher: ModelBatcher  # that admitted it
    _alarm: asyncio.TimerHandle | None = None
    _reading: asyncio.Task[Any] | None = None
    _too_late_to_read = False
    _hang_up_watch: asyncio.Task[None] | None = None

    def __init__(
        self,
        path: str,
        headers: Mapping[bytes, bytes],
        receive: Receive,
        send: Send,
        hang_ups: "set[Call] | None",
        whole: DirectCycle | None = None,
    ) -> None:
        self.started_at = time.monotonic()
        self.path = path
        self.headers = headers
        self.request_id = request_id_of(headers)
        self.body_complete = whole is not None
        self._receive = receive
        self._send = send
        self._hang_ups = hang_ups
        self._whole = whole

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
        self._alarm = asyncio.get_running_loop().call_at(self.deadline, self._expire)

    def _expire(self) -> None:
        if self.ticket is not None:
            self._batcher.expire(self.ticket)
        elif self._reading is not None:
            self._too_late_to_read = True
            self._reading.cancel()

    async def read_body(self, limit_bytes: int) -> bytes:
        """Return the body; raises TooLargeError as soon as it is known, CallerLeftError on a hang-up.

        A body that is not there by the deadline raises DeadlineExceededError.
        """
        if self._whole is not None:
            body = self._whole.body
            if len(body) > limit_bytes:
                raise TooLargeError("the body", len(body), limit_bytes, "bytes")
            return body
        declared = self.header(b"content-length")
        if declared.isdecimal() and len(declared) < 20 and int(declared) > limit_bytes:
            raise TooLargeError("the body", int(declared), limit_bytes, "bytes")
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

    def admitted(self, ticket: ModelTicket, batcher: ModelBatcher) -> None:
        """Remember the ticket; until `forget`, give it back when the caller hangs up or the deadline passes."""
        self.ticket = ticket
        self._batcher = batcher
        if self._hang_ups is not None:
            self._hang_ups.add(self)
        else:  # a server without the extension
            self._hang_up_watch = asyncio.ensure_future(self._wait_for_hang_up())

    async def _wait_for_hang_up(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.hung_up()

    def hung_up(self) -> None:
        """Take the ticket back: nobody reads the answer."""
        assert self.ticket is not None
        self._batcher.cancel(self.ticket)

    def forget(self) -> None:
        """Do not care any more whether the caller hangs up or the deadline passes."""
        if self._alarm is not None:
            self._alarm.cancel()
        if self._hang_ups is not None:
            self._hang_ups.discard(self)
        if self._hang_up_watch is not None:
            self._hang_up_watch.cancel()
            self._hang_up_watch = None  # the task knows this call: a cycle would wait for the garbage collector

    async def answer(self, body: bytes) -> None:
        """Send a 200 with a JSON body."""
        if self._whole is not None:
            self._whole.answer(body, self.request_id)
            return
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
