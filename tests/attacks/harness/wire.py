"""Raw connections: bytes go out as an attack wants them, and answers are read as they came."""

import contextlib
import re
import select
import socket
import struct
import time
from collections.abc import Mapping
from dataclasses import replace

from tests.attacks.harness.answer import Answer

PATIENCE_S = 10.0
RECEIVE_BYTES = 1 << 16
STATUS_LINE = re.compile(rb"HTTP/1\.[01] (\d{3})(?: [^\r\n]*)?\Z")


class Caller:
    """One connection; every wait ends after `patience_s`."""

    def __init__(self, port: int, patience_s: float = PATIENCE_S, receive_bytes: int | None = None) -> None:
        self.socket = socket.socket()
        if receive_bytes is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.socket.settimeout(patience_s)
        self.patience_s = patience_s
        self._unread = b""
        try:
            self.socket.connect(("127.0.0.1", port))
        except OSError:
            self.socket.close()
            raise

    def __enter__(self) -> "Caller":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes, stall_s: float | None = None, stop_when_answered: bool = False) -> int:
        """Send until all is gone, the server hung up, or it took nothing for `stall_s`; return the bytes taken."""
        rest = memoryview(data)
        wait_s = self.patience_s if stall_s is None else stall_s
        while rest:
            ready = self._ready(select.POLLOUT | (select.POLLIN if stop_when_answered else 0), wait_s)
            if not ready & select.POLLOUT or ready & select.POLLIN:
                break
            try:
                rest = rest[self.socket.send(rest[: 1 << 20]) :]
            except OSError:
                break
        return len(data) - len(rest)

    def spoken(self, within_s: float = 0.0) -> bool:
        """Whether the server answers or hangs up in time."""
        return bool(self._ready(select.POLLIN, within_s))

    def answer(self, bodiless: bool = False) -> Answer:
        """Read the next answer, whole; `bodiless` for a HEAD."""
        began = time.monotonic()
        answer = self._answer(bodiless)
        return replace(answer, wait_ms=(time.monotonic() - began) * 1000)

    def _answer(self, bodiless: bool) -> Answer:
        end = time.monotonic() + self.patience_s
        head = self._until(b"\r\n\r\n", end)
        if isinstance(head, Answer):
            return head
        lines = head.split(b"\r\n")
        matched = STATUS_LINE.match(lines[0])
        if matched is None:
            return Answer(end="garbage")
        status = int(matched[1])
        if 100 <= status < 200 and status != 101:
            return self._answer(bodiless)
        pairs = [line.partition(b":") for line in lines[1:] if line]
        headers = {name.decode("latin-1").lower(): value.strip().decode("latin-1") for name, _, value in pairs}
        body = b"" if bodiless or status in (101, 204, 304) else self._body(headers, end)
        if isinstance(body, Answer):
            return body
        return Answer(status, headers, body)

    def ask(self, data: bytes, bodiless: bool = False) -> Answer:
        """Send a request and read its answer."""
        began = time.monotonic()
        self.send(data, stop_when_answered=True)
        answer = self.answer(bodiless)
        return replace(answer, wait_ms=(time.monotonic() - began) * 1000)

    def closed(self, within_s: float) -> bool:
        """Whether the server hangs up in time; what it sends until then is thrown away."""
        end = time.monotonic() + within_s
        with contextlib.suppress(ConnectionError):
            while (left := end - time.monotonic()) > 0:
                if self.spoken(left) and not self.socket.recv(RECEIVE_BYTES):
                    return True
            return False
        return True

    def reset(self) -> None:
        """Hang up by a reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def _ready(self, events: int, within_s: float) -> int:
        poll = select.poll()  # select() takes no descriptor over 1023
        poll.register(self.socket, events)
        return next((found for _, found in poll.poll(within_s * 1000)), 0)

    def _until(self, mark: bytes, end: float) -> bytes | Answer:
        while mark not in self._unread:
            problem = self._more(end)
            if problem:
                return Answer(end=problem if not self._unread or problem == "silence" else "cut")
        found, _, self._unread = self._unread.partition(mark)
        return found

    def _exactly(self, size: int, end: float) -> bytes | Answer:
        while len(self._unread) < size:
            if self._more(end):
                return Answer(end="cut")
        found, self._unread = self._unread[:size], self._unread[size:]
        return found

    def _body(self, headers: Mapping[str, str], end: float) -> bytes | Answer:
        if headers.get("transfer-encoding") != "chunked":
            return self._exactly(int(headers.get("content-length", "0")), end)
        whole = b""
        while True:
            line = self._until(b"\r\n", end)
            if isinstance(line, Answer):
                return line
            piece = self._exactly(int(line, 16) + 2, end)
            if isinstance(piece, Answer):
                return piece
            if piece == b"\r\n":
                return whole
            whole += piece[:-2]

    def _more(self, end: float) -> str:
        self.socket.settimeout(max(0.001, end - time.monotonic()))
        try:
            data = self.socket.recv(RECEIVE_BYTES)
        except TimeoutError:
            return "silence"
        except OSError:
            return "closed"
        self._unread += data
        return "" if data else "closed"


def ask(port: int, data: bytes) -> Answer:
    """Send a request on a connection of its own and read its answer."""
    with Caller(port) as caller:
        return caller.ask(data)
