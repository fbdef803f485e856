"""The server's end of a connection without a network, on an event loop whose clock moves when told."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.server import ServerState

from service.protocol import TimedProtocol, timed_protocol

TURNS = 20  # of the event loop: more than what one event sets off


class ClockLoop(asyncio.SelectorEventLoop):
    """An event loop whose time stands still between calls of `pass_time`."""

    now = 0.0

    def time(self) -> float:
        """Seconds as told."""
        return self.now

    async def pass_time(self, seconds: float, step_s: float = 1.0) -> None:
        """Move the clock step by step, and let what is due then happen."""
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + step_s)
            await self.turn()

    async def turn(self) -> None:
        """Let everything that can go on without time go on."""
        for _ in range(TURNS):
            await asyncio.sleep(0)

    @property
    def timers(self) -> int:
        """Timers that are still to go off."""
        return sum(not timer.cancelled() for timer in self._scheduled)  # type: ignore[attr-defined]


class FakeTransport(asyncio.Transport):
    """Remembers what is written; closing it ends the connection in the loop's next turn, as a socket's does."""

    def __init__(self, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self._protocol = protocol
        self.written = b""
        self.closed_at: float | None = None
        self.takes_answers = True

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Remember it; what comes after the end is lost, as on a socket."""
        if self.closed_at is None:
            self.written += bytes(data)

    def is_closing(self) -> bool:
        """Whether it was closed."""
        return self.closed_at is not None

    def close(self) -> None:
        """End the connection, once."""
        if self.closed_at is None:
            loop = asyncio.get_running_loop()
            self.closed_at = loop.time()
            if self.takes_answers:
                loop.call_soon(self._protocol.connection_lost, None)

    def pause_reading(self) -> None:
        """Nothing comes by itself."""

    def resume_reading(self) -> None:
        """Nothing comes by itself."""


class Site:
    """What all connections of a server share; made on the event loop that serves."""

    def __init__(self, app: ASGIApp, direct: Mapping[str, ASGIApp], header_timeout_s: float, keep_alive_s: int) -> None:
        self._protocol = timed_protocol(header_timeout_s, direct, app)
        self.config = uvicorn.Config(
            app,
            http=self._protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=keep_alive_s,
        )
        self.config.load()
        self.state = ServerState()

    def protocol(self) -> TimedProtocol:
        """Return a new connection's protocol."""
        return self._protocol(self.config, self.state, {})

    def connect(self) -> "Connection":
        """Return a new connection."""
        return Connection(self.protocol())


class Connection:
    """A caller who sees what the server writes and when it hangs up."""

    def __init__(self, protocol: TimedProtocol) -> None:
        self._protocol = protocol
        self._transport = FakeTransport(protocol)
        protocol.connection_made(self._transport)

    async def send(self, data: bytes) -> None:
        """Send bytes in one piece, and let the server do with them what it can."""
        self._protocol.data_received(data)
        await _loop().turn()

    async def hang_up(self) -> None:
        """End the connection from this side."""
        self._transport.close()
        await _loop().turn()

    def stop_reading(self) -> None:
        """Take no answer any more: the server's end stays open until its last byte is taken."""
        self._transport.takes_answers = False

    @property
    def received(self) -> bytes:
        """Everything that the server wrote."""
        return self._transport.written

    @property
    def statuses(self) -> list[int]:
        """The status of each answer so far."""
        return [int(answer.split()[0]) for answer in self.received.split(b"HTTP/1.1 ")[1:]]

    @property
    def closed_at(self) -> float | None:
        """When the connection was ended, on the loop's clock."""
        return self._transport.closed_at


def _loop() -> ClockLoop:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, ClockLoop)
    return loop


def request(body: Any = None, path: str = "/classify", **headers: str) -> bytes:
    """A POST of a JSON value; in header names, _ stands for -."""
    data = json.dumps(body).encode()
    fields = {"host": "x", "content_type": "application/json", "content_length": str(len(data)), **headers}
    lines = [f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items()]
    return f"POST {path} HTTP/1.1\r\n{''.join(lines)}\r\n".encode() + data
