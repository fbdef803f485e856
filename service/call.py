"""One HTTP request to an inference route: its body, its caller, its deadline, its answer."""

import asyncio
import time
from collections.abc import Callable, Mapping

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.errors import CallerLeftError, DeadlineExceededError
from service.metrics import UNKNOWN_MODEL
from service.model import ModelBatcher, ModelTicket

HANG_UPS = "ladabert.hang_ups"  # ASGI extension: its `callbacks`, a set, are called when the caller hangs up


class Call:
    """A request and its caller; the route sets `model` as soon as it knows which served model is meant."""

    model = UNKNOWN_MODEL
    deadline = float("inf")  # on the monotonic clock
    ticket: ModelTicket | None = None  # once admitted; its times are those of the steps
    _batcher: ModelBatcher  # that admitted it
    _alarm: asyncio.TimerHandle | None = None
    _hang_up_watch: asyncio.Task[None] | None = None

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.started_at = time.monotonic()
        self.path: str = scope["path"]
        self.headers: Mapping[bytes, bytes] = dict(scope["headers"])
        self.request_id: str = scope["state"]["request_id"]
        self._scope = scope
        self._receive = receive
        self._send = send
        self._hang_ups: set[Callable[[], None]] | None = scope.get("extensions", {}).get(HANG_UPS, {}).get("callbacks")

    @property
    def elapsed_s(self) -> float:
        """Seconds since the request's headers were read."""
        return time.monotonic() - self.started_at

    def header(self, name: bytes) -> str:
        """Return a header's value, empty where there is none."""
        return self.headers.get(name, b"").decode("latin-1")

    def set_deadline(self, timeout_s: float) -> None:
        """Set the deadline to `timeout_s` after the headers were read; replaces an earlier deadline."""
        self.deadline = self.started_at + timeout_s

    async def read_body(self) -> bytes:
        """Return the body; raises CallerLeftError on a hang-up and DeadlineExceededError at the deadline.

        What `receive` raises passes through.
        """
        chunks: list[bytes] = []
        more = True
        try:
            async with asyncio.timeout(self.deadline - time.monotonic()):
                while more:
                    message = await self._receive()
                    if message["type"] == "http.disconnect":
                        raise CallerLeftError
                    chunks.append(message.get("body", b""))
                    more = message.get("more_body", False)
        except TimeoutError:
            raise DeadlineExceededError from None
        return b"".join(chunks)

    def admitted(self, ticket: ModelTicket, batcher: ModelBatcher) -> None:
        """Remember the ticket; until `forget`, give it back when the caller hangs up or the deadline passes."""
        self.ticket = ticket
        self._batcher = batcher
        left_s = self.deadline - time.monotonic()
        self._alarm = asyncio.get_running_loop().call_later(left_s, batcher.expire, ticket)
        if self._hang_ups is not None:
            self._hang_ups.add(self.hang_up)
        else:  # a server without the extension
            self._hang_up_watch = asyncio.ensure_future(self._wait_for_hang_up())

    async def _wait_for_hang_up(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.hang_up()

    def hang_up(self) -> None:
        """Take the ticket back: nobody reads the answer."""
        assert self.ticket is not None
        self._batcher.cancel(self.ticket)

    def forget(self) -> None:
        """Ignore the deadline and the caller's hang-up from now on."""
        if self._alarm is not None:
            self._alarm.cancel()
        if self._hang_ups is not None:
            self._hang_ups.discard(self.hang_up)
        if self._hang_up_watch is not None:
            self._hang_up_watch.cancel()
            self._hang_up_watch = None  # the task knows this call: a cycle would wait for the garbage collector

    async def answer(self, response: Response) -> None:
        """Send the answer."""
        await response(self._scope, self._receive, self._send)
