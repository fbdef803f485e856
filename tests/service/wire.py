"""The server's end of a connection without a network, on an event loop whose clock moves when told."""

import asyncio
import json
import time
from collections.abc import Callable, Coroutine
from typing import Any
from unittest import mock

import uvicorn
from starlette.applications import Starlette
from uvicorn.server import ServerState

from ladabert_serve.server.connection import Connection as Protocol
from ladabert_serve.server.connection import bounded_protocol
from ladabert_serve.server.connections import Connections
from ladabert_serve.settings import Settings

TURNS = 20  # of the event loop: more than what one event sets off
PATIENCE = 100_000  # times as many: for what a runner thread computes


class ClockLoop(asyncio.SelectorEventLoop):
    """An event loop whose time stands still between calls of `pass_time`."""

    def __init__(self) -> None:
        # Whole seconds, so that sums are exact; near the clock of the runner threads, who look whether it is too late.
        self.began_at = self.now = float(int(time.monotonic()))
        super().__init__()

    def time(self) -> float:
        """Seconds as told."""
        return self.now

    monotonic = time  # for who takes it for the module `time`

    @property
    def elapsed_s(self) -> float:
        """Seconds that were let pass."""
        return self.now - self.began_at

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

    async def turn_until(self, holds: Callable[[], bool]) -> None:
        """Let things go on until something is so, without time."""
        for _ in range(PATIENCE):
            if holds():
                return
            await self.turn()
        raise TimeoutError("it did not become so")

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
        self.wrote_eof = False
        self.reads = True

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Remember it; what comes after the end is lost, as on a socket."""
        if self.closed_at is None and not self.wrote_eof:
            self.written += bytes(data)

    def is_closing(self) -> bool:
        """Whether it was closed."""
        return self.closed_at is not None

    def close(self) -> None:
        """End the connection, once."""
        if self.closed_at is None:
            loop = asyncio.get_running_loop()
            assert isinstance(loop, ClockLoop)
            self.closed_at = loop.elapsed_s
            if self.takes_answers:
                loop.call_soon(self._protocol.connection_lost, None)

    abort = close

    def get_write_buffer_size(self) -> int:
        """All that is written is taken, unless the caller stopped reading."""
        return 0 if self.takes_answers else len(self.written)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """There is no buffer."""

    def can_write_eof(self) -> bool:
        """Whether one direction can be closed alone, as on a TCP socket."""
        return True

    def write_eof(self) -> None:
        """End this direction; what comes later is lost."""
        self.wrote_eof = True

    def pause_reading(self) -> None:
        """Let the caller's bytes wait in the kernel."""
        self.reads = False

    def resume_reading(self) -> None:
        """Take the caller's bytes again."""
        self.reads = True


class Site:
    """What all connections of a server share; made on the event loop that serves."""

    def __init__(self, app: Starlette, **limits: Any) -> None:
        self.app = app
        settings = Settings(**{"header_timeout_s": 4.0, **limits})
        self.connections = Connections(settings, asyncio.get_running_loop().time)
        self._protocol = bounded_protocol(self.connections)
        self.config = uvicorn.Config(
            app,
            http=self._protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
        )
        self.config.load()
        self.state = ServerState()

    def protocol(self) -> Protocol:
        """Return a new connection's protocol."""
        return self._protocol(self.config, self.state, {})

    def connect(self) -> "Connection":
        """Return a new connection."""
        return Connection(self.protocol())


class Connection:
    """A caller who sees what the server writes and when it hangs up."""

    def __init__(self, protocol: Protocol) -> None:
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

    def start_reading(self) -> None:
        """Take answers again, and see the connection's end if it was ended."""
        self._transport.takes_answers = True
        if self._transport.closed_at is not None:
            self._protocol.connection_lost(None)

    @property
    def reads(self) -> bool:
        """Whether the server takes what is sent."""
        return self._transport.reads

    @property
    def received(self) -> bytes:
        """Everything that the server wrote."""
        return self._transport.written

    @property
    def statuses(self) -> list[int]:
        """The status of each answer so far."""
        return [int(answer.split()[0]) for answer in self.received.split(b"HTTP/1.1 ")[1:]]

    @property
    def request_ids(self) -> list[str]:
        """The request's id in each answer so far."""
        answers = self.received.split(b"HTTP/1.1 ")[1:]
        return [answer.partition(b"x-request-id: ")[2].split(b"\r\n")[0].decode() for answer in answers]

    @property
    def closed_at(self) -> float | None:
        """When the connection was ended, in seconds since the loop began."""
        return self._transport.closed_at


def _loop() -> ClockLoop:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, ClockLoop)
    return loop


def on_the_clock(main: Callable[[ClockLoop], Coroutine[Any, Any, None]]) -> None:
    """Run a coroutine on a loop of its own; what requests see as time is the loop's."""
    loop = ClockLoop()
    with asyncio.Runner(loop_factory=lambda: loop) as runner, mock.patch("ladabert_serve.http.call.time", loop):
        runner.run(main(loop))


def request(body: Any = None, path: str = "/classify", **headers: str) -> bytes:
    """A POST of a JSON value; in header names, _ stands for -."""
    data = json.dumps(body).encode()
    fields = {"host": "x", "content_type": "application/json", "content_length": str(len(data)), **headers}
    lines = [f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items()]
    return f"POST {path} HTTP/1.1\r\n{''.join(lines)}\r\n".encode() + data
