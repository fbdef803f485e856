"""One HTTP request to an inference route: its body, its caller, its deadline, its answer."""

import asyncio
import time
from collections.abc import Callable, Mapping

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ladabert_serve.errors import CallerLeftError, DeadlineExceededError, RequestError
from ladabert_serve.http.api_keys import ApiKey
from ladabert_serve.models.question import ModelBatcher, ModelTicket
from ladabert_serve.observability.metrics import UNKNOWN_MODEL

HANG_UPS = "ladabert.hang_ups"  # ASGI extension: its `callbacks`, a set, are called when the caller hangs up


class Call:
    """A request and its caller; the route sets `model` as soon as it knows which served model is meant."""

    model = UNKNOWN_MODEL
    key: ApiKey | None = None  # with which it came, where keys are configured
    deadline = float("inf")  # on the monotonic clock
    refuse: Callable[[RequestError, str], Response] | None = None  # of the body's dialect, where it is not the route's
    _batcher: ModelBatcher  # that admitted the last ticket
    _left = False  # whether the caller hung up
    _alarm: asyncio.TimerHandle | None = None
    _reading: asyncio.Task[None] | None = None
    _is_late = False
    _hang_up_watch: asyncio.Task[None] | None = None

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.started_at = time.monotonic()
        self.path: str = scope["path"]
        self.path_parameters: Mapping[str, str] = scope.get("path_params", {})
        self.headers: Mapping[bytes, bytes] = dict(scope["headers"])
        self.request_id: str = scope["state"]["request_id"]
        self._scope = scope
        self._receive = receive
        self._send = send
        self.tickets: list[ModelTicket] = []  # once admitted, one for each model that was asked
        self._hang_ups: set[Callable[[], None]] | None = scope.get("extensions", {}).get(HANG_UPS, {}).get("callbacks")

    @property
    def client(self) -> str | None:
        """The caller's address, as the connection or a trusted proxy says; None on a Unix socket."""
        client = self._scope.get("client")
        return client[0] if client else None

    @property
    def flow(self) -> str | None:
        """The name under which requests share their part of the runners; None for a part of its own."""
        return None if self.key is None else self.key.name

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
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = asyncio.get_running_loop().call_later(self.deadline - time.monotonic(), self._expire)

    def _expire(self) -> None:
        if self.tickets:
            self._batcher.expire(self.tickets[-1])
        elif self._reading is not None:
            self._is_late = True
            self._reading.cancel()

    async def read_body(self) -> bytes:
        """Return the body; raises CallerLeftError on a hang-up and DeadlineExceededError at the deadline.

        What `receive` raises passes through.
        """
        self._reading = asyncio.current_task()
        try:
            more = True
            chunks: list[bytes] = []
            while more:
                message = await self._receive()
                if message["type"] == "http.disconnect":
                    raise CallerLeftError
                chunks.append(message.get("body", b""))
                more = message.get("more_body", False)
            return b"".join(chunks)
        except asyncio.CancelledError:
            if self._is_late:
                raise DeadlineExceededError from None
            raise
        finally:
            self._reading = None

    def admitted(self, ticket: ModelTicket, batcher: ModelBatcher) -> None:
        """Remember a ticket; until `forget`, give it back when the caller hangs up or the deadline passes."""
        self.tickets.append(ticket)
        self._batcher = batcher
        if len(self.tickets) == 1:
            self._watch()
        elif self._left:
            batcher.cancel(ticket)
        elif time.monotonic() >= self.deadline:
            batcher.expire(ticket)

    def _watch(self) -> None:
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
        self._left = True
        self._batcher.cancel(self.tickets[-1])

    def forget(self) -> None:
        """Ignore the deadline and the caller's hang-up from now on."""
        if self._alarm is not None:
            self._alarm.cancel()
        if self._hang_ups is not None:
            self._hang_ups.discard(self.hang_up)
        if self._hang_up_watch is not None:
            self._hang_up_watch.cancel()
            self._hang_up_watch = None  # the task knows this call: a cycle would wait for the garbage collector

    def steps(self) -> list[tuple[str, float, float]]:
        """Return name, begin and end of each completed step of every model that was asked."""
        return [step for ticket in self.tickets for step in ticket.steps()]

    async def answer(self, body: bytes) -> None:
        """Send a 200 with a JSON body."""
        headers = [(b"content-length", b"%d" % len(body)), (b"content-type", b"application/json")]
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})

    async def send_response(self, response: Response) -> None:
        """Send any other answer."""
        await response(self._scope, self._receive, self._send)
