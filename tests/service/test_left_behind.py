"""Claims about what connections and requests leave behind, however many they are: nothing.

The application, its protocol and its event loop are those of the server; a connection is a pair of sockets.
"""

import asyncio
import contextlib
import gc
import socket
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import uvloop

from ladabert_serve.app import create_app
from ladabert_serve.settings import Settings
from tests.service.wire import Site, request

pytestmark = pytest.mark.slow

PATIENCE_S = 60.0
GOOD = request({"inputs": "a good film"})
BAD = [
    (request({"inputs": []}), 422),
    (request({"inputs": "a", "model": "nope"}), 404),
    (request({"inputs": ["a"] * 4}), 413),
    (request({"inputs": "a"}, content_type="text/plain"), 415),
    (b"GET /health/ready HTTP/1.1\r\nhost: x\r\n\r\n", 200),
]


class Caller:
    """One end of a connection whose other end is served."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def connect(cls, site: Site) -> "Caller":
        """Open a connection."""
        ours, theirs = socket.socketpair()
        await asyncio.get_running_loop().connect_accepted_socket(site.protocol, theirs)
        return cls(*await asyncio.open_connection(sock=ours))

    def write(self, data: bytes) -> None:
        """Send and expect nothing."""
        self._writer.write(data)

    async def ask(self, data: bytes) -> int:
        """Send a request, read its answer, and return the status."""
        self._writer.write(data)
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]
        await self._reader.readexactly(int(length))
        return int(head.split()[1])

    async def hang_up(self) -> None:
        """End the connection."""
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()


class Use:
    """What the process uses at this moment."""

    def __init__(self) -> None:
        gc.collect()
        self.descriptors = sum(1 for _ in Path("/proc/self/fd").iterdir())
        self.threads = threading.active_count()
        self.blocks = sys.getallocatedblocks()
        self.objects = Counter(type(thing) for thing in gc.get_objects())


def on_a_site(models: Path, check: Callable[[Site], Awaitable[None]]) -> None:
    """Run a check on an application that is served; no connection, task, thread or descriptor is left afterwards."""

    async def main() -> None:
        app = create_app(Settings(models=models, max_inputs=3))
        async with app.router.lifespan_context(app):
            site = Site(app, header_timeout_s=PATIENCE_S)
            async with asyncio.timeout(PATIENCE_S):
                await _serve_once(site)  # what is made at the first request stays
                before = Use()
                await check(site)
                while site.state.connections or site.state.tasks:
                    await asyncio.sleep(0)
                after = Use()
                assert (after.descriptors, after.threads) == (before.descriptors, before.threads)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


async def _serve_once(site: Site) -> None:
    async with connected(site) as caller:
        for ask, status in [(GOOD, 200), *BAD]:
            assert await caller.ask(ask) == status
    while site.state.connections:
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def connected(site: Site) -> AsyncIterator[Caller]:
    """A connection while the context lasts."""
    caller = await Caller.connect(site)
    try:
        yield caller
    finally:
        await caller.hang_up()


def test_callers_are_answered_beside_many_idle_connections_and_those_leave_nothing(models: Path) -> None:
    async def check(site: Site) -> None:
        async with contextlib.AsyncExitStack() as stack:
            idle = [await stack.enter_async_context(connected(site)) for _ in range(150)]
            for caller in idle[::3]:
                assert await caller.ask(GOOD) == 200  # idle after an answer
            for caller in idle[1::3]:
                caller.write(GOOD[:30])  # in the middle of its headers
            assert len(site.state.connections) == len(idle)
            async with connected(site) as served:
                assert [await served.ask(GOOD) for _ in range(50)] == [200] * 50

    on_a_site(models, check)


def test_callers_are_answered_beside_connections_that_come_and_go_and_those_leave_nothing(models: Path) -> None:
    async def check(site: Site) -> None:
        async with connected(site) as served:
            for number in range(400):
                async with connected(site) as passing:
                    if number % 4:
                        passing.write(GOOD[: number % 4 * len(GOOD) // 3])  # a part of a request, or all of it
                if number % 10 == 0:
                    assert await served.ask(GOOD) == 200

    on_a_site(models, check)


def test_many_requests_leave_no_object_thread_or_descriptor(models: Path) -> None:
    async def check(site: Site) -> None:
        async with contextlib.AsyncExitStack() as stack:
            callers = [await stack.enter_async_context(connected(site)) for _ in range(4)]

            requests = 1000

            async def ask_often(caller: Caller) -> None:
                for number in range(requests // len(callers)):
                    ask, status = BAD[number // 5 % len(BAD)] if number % 5 == 0 else (GOOD, 200)
                    assert await caller.ask(ask) == status

            model = site.app.state.services.registry.get(None)

            async def use_after_many() -> Use:
                await asyncio.gather(*map(ask_often, callers))
                while model.batcher.lane.turns.free < model.runners:  # one may have a step to go after the last answer
                    await asyncio.sleep(0)
                return Use()

            before = await use_after_many()
            after = await use_after_many()
        assert (after.descriptors, after.threads) == (before.descriptors, before.threads)
        grown = after.objects - before.objects
        assert not [kind for kind in grown if kind.__module__.startswith("ladabert_serve")]
        assert grown.total() < 10, grown
        assert after.blocks - before.blocks < requests / 2  # of memory: what is no container counts here

    on_a_site(models, check)
