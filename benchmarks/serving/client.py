"""A closed-loop HTTP client in one thread: each connection sends its next request when it has its answer.

Who is told to come again later (429 with Retry-After) does so, with the same request, whose latency goes on counting:
a server that refuses must not look faster than one that lets everybody wait.

It costs about as much CPU a request as wrk, which it replaces for two reasons: it tells kinds of requests apart
within one load, and it reports what it measured, where wrk adds the requests that an open loop would have sent
("coordinated omission") to the percentiles.
"""

from __future__ import annotations

import gc
import heapq
import itertools
import json
import select
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

MARK = b'"label"'  # in every contender's answer, a fixed number of times per text
PATIENCE_S = 60.0
TURN_S = 0.1  # at most, without news
RECEIVE_BYTES = 1 << 18
SEND_BUFFER_BYTES = 1 << 20  # a whole request: sending never waits


@dataclass(frozen=True, slots=True)
class Request:
    """What is sent, under which name its latency is filed, and how many marks a right answer holds."""

    data: bytes
    kind: str
    marks: int


@dataclass(frozen=True, slots=True)
class Stream:
    """Connections that take turns through a list of requests, again and again."""

    connections: int
    requests: Sequence[Request]


@dataclass(slots=True)
class Outcome:
    """What came back within the measured time."""

    seconds: float = 0.0
    cpu_s: float = 0.0  # of the server
    client_cpu_s: float = 0.0
    refused: int = 0  # told to come again later; sent again then
    errors: int = 0  # no answer, any other status than 200, or the wrong number of labels
    latencies_ms: dict[str, list[float]] = field(default_factory=dict)  # by kind

    @property
    def answers(self) -> int:
        """How many right answers there were."""
        return sum(len(values) for values in self.latencies_ms.values())

    def all_latencies_ms(self) -> list[float]:
        """Return the latencies of every kind."""
        return [value for values in self.latencies_ms.values() for value in values]


def encode_request(path: str, body: Any) -> bytes:
    """Return a POST of a JSON body over a connection that stays open."""
    data = json.dumps(body, ensure_ascii=False).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {len(data)}"
    return head.encode() + b"\r\n\r\n" + data


def body_of(received: bytes) -> bytes | None:
    """Return the body of a whole response, or None while bytes are missing; raises ValueError without a length."""
    head_end = received.find(b"\r\n\r\n")
    if head_end < 0:
        return None
    length = _number_in_head(received, b"content-length")
    if length is None:
        raise ValueError("an answer without content-length")
    body_start = head_end + 4
    return received[body_start:] if len(received) >= body_start + length else None


def _number_in_head(received: bytes, name: bytes) -> int | None:
    """Return the number that a header of a response holds, or None where it is not there."""
    head = received[: received.index(b"\r\n\r\n") + 2].lower()
    _, found, rest = head.partition(b"\r\n%b:" % name)
    return int(rest[: rest.index(b"\r\n")]) if found else None


def ask(port: int, data: bytes, timeout_s: float = PATIENCE_S) -> tuple[bool, bytes]:
    """Send one request on its own connection; return whether the status is 200, and the body."""
    with socket.create_connection(("127.0.0.1", port), timeout_s) as connection:
        connection.sendall(data)
        received = b""
        while (body := body_of(received)) is None:
            chunk = connection.recv(RECEIVE_BYTES)
            if not chunk:
                raise ConnectionError("closed before the answer was complete")
            received += chunk
        return _is_ok(received), body


class _Connection:
    __slots__ = ("received", "request", "sent_at", "socket", "stream")

    def __init__(self, port: int, stream: int) -> None:
        self.stream = stream
        self.received = b""
        self.sent_at = 0.0
        self.request: Request | None = None
        self.socket = socket.create_connection(("127.0.0.1", port), PATIENCE_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)


class _Loop:
    """The connections of one run; `record` says whether answers count."""

    def __init__(self, port: int, streams: Sequence[Stream], clock: Callable[[], float]) -> None:
        self.port = port
        self.streams = streams
        self.clock = clock
        self.outcome = Outcome()
        self.record = False
        self.sending = True
        self._next = [0] * len(streams)
        self._poll = select.epoll()
        self._connections: dict[int, _Connection] = {}
        self._later: list[tuple[float, int, _Connection, Request]] = []  # a heap: what to send again, and when
        self._refused = itertools.count()  # of equal times the first goes first
        self.waiting = 0

    def open(self) -> None:
        for index, stream in enumerate(self.streams):
            for _ in range(stream.connections):
                self._open(index)

    def close(self) -> None:
        for connection in self._connections.values():
            connection.socket.close()
        self._poll.close()

    def turn(self) -> None:
        """Take in what has arrived, and send what follows on it."""
        patience_s = min(TURN_S, max(0.0, self._later[0][0] - self.clock())) if self._later else TURN_S
        ready = self._poll.poll(patience_s)
        now = self.clock()  # before any of them is read: reading is not the server's time
        while self.sending and self._later and self._later[0][0] <= now:
            _, _, connection, request = heapq.heappop(self._later)
            if connection.socket.fileno() >= 0:  # not closed meanwhile
                self._transmit(connection, request)
        for number, _ in ready:
            connection = self._connections[number]
            try:
                chunk = connection.socket.recv(RECEIVE_BYTES)
            except OSError:
                chunk = b""
            if not chunk:
                self._replace(number, connection)
                continue
            connection.received = connection.received + chunk if connection.received else chunk
            body = body_of(connection.received)
            if body is not None:
                self._answered(connection, body, now)

    def _answered(self, connection: _Connection, body: bytes, now: float) -> None:
        request = connection.request
        assert request is not None
        retry_after_s = _retry_after_s(connection.received)
        if self.record:
            if retry_after_s is not None:
                self.outcome.refused += 1
            elif _is_ok(connection.received) and body.count(MARK) == request.marks:
                latencies = self.outcome.latencies_ms.setdefault(request.kind, [])
                latencies.append((now - connection.sent_at) * 1000)
            else:
                self.outcome.errors += 1
        connection.received = b""
        connection.request = None
        self.waiting -= 1
        if retry_after_s is not None:
            heapq.heappush(self._later, (now + retry_after_s, next(self._refused), connection, request))
        elif self.sending:
            self._send(connection)

    def _open(self, stream: int) -> None:
        connection = _Connection(self.port, stream)
        self._connections[connection.socket.fileno()] = connection
        self._poll.register(connection.socket.fileno(), select.EPOLLIN)
        self._send(connection)

    def _replace(self, number: int, connection: _Connection) -> None:
        """Count a connection that the server closed, and open another one."""
        if connection.request is not None:
            self.waiting -= 1
            self.outcome.errors += self.record
        self._poll.unregister(number)
        del self._connections[number]
        connection.socket.close()
        if self.sending:
            self._open(connection.stream)

    def _send(self, connection: _Connection) -> None:
        requests = self.streams[connection.stream].requests
        index = self._next[connection.stream]
        self._next[connection.stream] = (index + 1) % len(requests)
        connection.sent_at = self.clock()
        self._transmit(connection, requests[index])

    def _transmit(self, connection: _Connection, request: Request) -> None:
        connection.request = request
        self.waiting += 1
        connection.socket.sendall(request.data)


def drive(
    port: int,
    streams: Sequence[Stream],
    seconds: float,
    warm_up_s: float,
    server_cpu_s: Callable[[], float],
    clock: Callable[[], float] = time.perf_counter,
) -> Outcome:
    """Send until `seconds` have passed after the warm-up, then wait for the answers that are still out.

    A slow server gets up to three times as long, until each connection has had four answers on average.
    """
    loop = _Loop(port, streams, clock)
    least_answers = 4 * sum(stream.connections for stream in streams)
    gc.collect()
    gc.disable()
    try:
        loop.open()
        _turn_until(loop, clock() + warm_up_s, 0)
        loop.record, start, cpu_start, client_start = True, clock(), server_cpu_s(), time.thread_time()
        _turn_until(loop, start + seconds, 0)
        _turn_until(loop, start + 3 * seconds, least_answers)
        loop.record = loop.sending = False
        loop.outcome.seconds = clock() - start
        loop.outcome.client_cpu_s = time.thread_time() - client_start
        loop.outcome.cpu_s = server_cpu_s() - cpu_start
        give_up = clock() + PATIENCE_S
        while loop.waiting and clock() < give_up:
            loop.turn()
    finally:
        gc.enable()
        loop.close()
    return loop.outcome


def _turn_until(loop: _Loop, end: float, enough_answers: int) -> None:
    """Turn until a time, or earlier once there are enough answers (0: until the time)."""
    while loop.clock() < end and not (enough_answers and loop.outcome.answers >= enough_answers):
        loop.turn()


def _is_ok(received: bytes) -> bool:
    return received.startswith(b"HTTP/1.1 200")


def _retry_after_s(received: bytes) -> int | None:
    """Return when a refused request may come again, or None where the answer does not say so."""
    return _number_in_head(received, b"retry-after") if received.startswith(b"HTTP/1.1 429") else None
