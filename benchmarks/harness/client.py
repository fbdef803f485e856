"""An HTTP/1.1 client on asyncio: says exactly when bytes leave, and keeps, pipelines or drops connections as told.

A library's client hides all of that. This one costs about 20 µs of CPU a request, which matters where load and server
share the cores. It must run on asyncio's own event loop: uvloop keeps a write until its next turn, so that "sent" would
be a guess.
"""

import asyncio
import json
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httptools

NO_ANSWER = 0
CLOSE_S = 5.0  # for the operating system's word that a connection is closed


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one request; `status` is NO_ANSWER when the connection ended without one."""

    request: bytes
    status: int
    sent_at: float  # time.perf_counter() once the last byte was handed to the kernel
    ended_at: float
    headers: dict[str, str]
    body: bytes

    @property
    def seconds(self) -> float:
        """From sent to answered."""
        return self.ended_at - self.sent_at

    def json(self) -> Any:
        """Return the parsed body."""
        return json.loads(self.body)


class Connection(asyncio.Protocol):
    """One connection; requests sent before the answer to the last one are pipelined."""

    def __init__(self) -> None:
        self.port = 0  # ours
        self._transport: asyncio.Transport | None = None
        self._waiting: deque[tuple[bytes, float, asyncio.Future[Answer]]] = deque()
        self._parser: Any = None
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []
        self._lost = asyncio.get_running_loop().create_future()

    @classmethod
    async def open(cls, port: int) -> "Connection":
        """Connect to the server on this machine; raises OSError."""
        _, connection = await asyncio.get_running_loop().create_connection(cls, "127.0.0.1", port)
        return connection

    @property
    def is_open(self) -> bool:
        """Whether requests can be sent as far as this side knows."""
        return self._transport is not None and not self._transport.is_closing()

    def write(self, data: bytes) -> None:
        """Send bytes and expect nothing."""
        assert self._transport is not None
        self._transport.write(data)

    def send(self, request: bytes) -> "asyncio.Future[Answer]":
        """Send a whole request; the future is always resolved, also when the connection breaks."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.write(request)
        self._waiting.append((request, time.perf_counter(), future))
        if not self.is_open:
            self._give_up()
        return future

    def close(self) -> None:
        """Hang up, after what was written."""
        assert self._transport is not None
        self._transport.close()

    async def wait_closed(self, timeout_s: float) -> bool:
        """Return whether the connection ended within `timeout_s`."""
        done, _ = await asyncio.wait([self._lost], timeout=timeout_s)
        return bool(done)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.port = transport.get_extra_info("sockname")[1]
        self._parser = httptools.HttpResponseParser(self)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the protocol's contract
        self._give_up()
        if not self._lost.done():
            self._lost.set_result(None)

    def on_message_begin(self) -> None:
        self._headers, self._body = {}, []

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        if self._waiting:
            self._resolve(self._parser.get_status_code(), self._headers, b"".join(self._body))

    def _give_up(self) -> None:
        while self._waiting:
            self._resolve(NO_ANSWER, {}, b"")

    def _resolve(self, status: int, headers: dict[str, str], body: bytes) -> None:
        request, sent_at, future = self._waiting.popleft()
        if not future.done():
            future.set_result(Answer(request, status, sent_at, time.perf_counter(), headers, body))


class Pool:
    """Connections that are kept alive and shared; as many as are needed at once."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[Connection] = []

    async def open(self, count: int) -> None:
        """Open connections ahead of use."""
        self._idle = [await Connection.open(self._port) for _ in range(count)]

    async def ask(self, request: bytes) -> Answer:
        """Send a request and return its answer; one without a status when there is no connection."""
        while self._idle and not self._idle[-1].is_open:
            self._idle.pop()
        try:
            connection = self._idle.pop() if self._idle else await Connection.open(self._port)
        except OSError:
            now = time.perf_counter()
            return Answer(request, NO_ANSWER, now, now, {}, b"")
        answer = await connection.send(request)
        self._idle.append(connection)
        return answer

    async def close(self) -> None:
        """Hang up everywhere; nothing may be asked any more."""
        for connection in self._idle:
            connection.close()
        await asyncio.gather(*(connection.wait_closed(CLOSE_S) for connection in self._idle))


async def ask(port: int, request: bytes) -> Answer:
    """Send one request on a connection of its own; raises OSError when there is none."""
    connection = await Connection.open(port)
    try:
        return await connection.send(request)
    finally:
        connection.close()


def get(path: str) -> bytes:
    """Return a GET request."""
    return f"GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode()


def post(path: str, body: Any, request_id: str | None = None) -> bytes:
    """Return a POST request with a JSON body."""
    data = json.dumps(body, ensure_ascii=False).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {len(data)}"
    if request_id is not None:
        head += f"\r\nx-request-id: {request_id}"
    return head.encode() + b"\r\n\r\n" + data


def classify(inputs: str | Sequence[str], timeout_ms: int | None = None, request_id: str | None = None) -> bytes:
    """Return a POST /classify request."""
    return post("/classify", {"inputs": inputs} | ({"timeout_ms": timeout_ms} if timeout_ms else {}), request_id)
