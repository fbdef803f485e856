"""Claims about the end: what was admitted is finished, and all is over within the grace period, by a clock of our own.

The application and the server's shutdown are real; its model runs when told.
"""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from ladabert_serve.app import create_app
from ladabert_serve.server.server import Server
from ladabert_serve.settings import Settings
from tests.service.gated import Gated
from tests.service.wire import ClockLoop, Connection, Site, on_the_clock, request

GRACE_S = 30.0
STEP_S = 0.05


class Ending:
    """A server with a request at the gate and one in the queue, which is asked to stop at 0."""

    def __init__(self, models: Path, grace_period_s: float, drain_s: float = 0.0) -> None:
        self.gated = Gated()
        self.app = create_app(Settings(models=models, runners=1, default_timeout_ms=60000), self.gated.load)
        self.grace_period_s = grace_period_s
        self.drain_s = drain_s
        self.site: Site
        self.connections: list[Connection] = []
        self.shutdown: asyncio.Task[None]

    async def run(self, check: "Callable[[Ending, ClockLoop], Coroutine[Any, Any, None]]", loop: ClockLoop) -> None:
        """Ask, stop, and run a check."""
        async with self.app.router.lifespan_context(self.app):
            self.site = site = Site(self.app)
            server = Server(
                site.config,
                self.app.state.services.registry,
                site.connections,
                self.grace_period_s,
                lambda: None,
                lambda: None,
                drain_s=self.drain_s,
            )
            server.server_state = site.state
            server.servers = []
            server.lifespan = site.config.lifespan_class(site.config)
            self.connections = [site.connect() for _ in range(2)]
            for connection in self.connections:
                await connection.send(request({"inputs": "a"}))
            await asyncio.to_thread(self.gated.wait_at_gate)
            self.shutdown = asyncio.create_task(server.shutdown())
            try:
                await check(self, loop)
            finally:
                self.gated.backend.gate.set()

    @property
    def statuses(self) -> list[list[int]]:
        """What each of the two was answered."""
        return [connection.statuses for connection in self.connections]


def on_an_ending(models: Path, check: Any, grace_period_s: float = GRACE_S, drain_s: float = 0.0) -> None:
    on_the_clock(lambda loop: Ending(models, grace_period_s, drain_s).run(check, loop))


def test_what_was_admitted_is_finished_and_then_all_is_over(models: Path) -> None:
    async def check(ending: Ending, loop: ClockLoop) -> None:
        await loop.pass_time(20, STEP_S)
        assert ending.statuses == [[], []]
        assert not ending.shutdown.done()
        ending.gated.backend.gate.set()
        await loop.turn_until(lambda: ending.statuses == [[200], [200]])
        await loop.pass_time(0.2, STEP_S)
        assert ending.shutdown.done()
        assert ending.statuses == [[200], [200]]

    on_an_ending(models, check)


@pytest.mark.parametrize(("grace_s", "told_s"), [(30.0, 29.0), (2.0, 1.0), (1.0, 0.5)])
def test_a_run_that_hangs_is_answered_503_and_all_is_over_within_the_grace_period(
    models: Path, grace_s: float, told_s: float
) -> None:
    async def check(ending: Ending, loop: ClockLoop) -> None:
        await loop.pass_time(told_s - STEP_S, STEP_S)
        assert ending.statuses == [[], []]
        await loop.pass_time(2 * STEP_S, STEP_S)
        assert ending.statuses == [[503], [503]]
        await loop.pass_time(0.2, STEP_S)
        assert ending.shutdown.done()
        assert loop.elapsed_s < grace_s

    on_an_ending(models, check, grace_s)


def test_a_caller_who_does_not_take_the_answer_does_not_hold_up_the_end(models: Path) -> None:
    async def check(ending: Ending, loop: ClockLoop) -> None:
        ending.connections[0].stop_reading()
        await loop.pass_time(GRACE_S, STEP_S)
        assert ending.shutdown.done()

    on_an_ending(models, check)


def test_while_load_balancers_still_send_the_server_answers_and_is_not_ready(models: Path) -> None:
    async def check(ending: Ending, loop: ClockLoop) -> None:
        ending.gated.backend.gate.set()
        await loop.turn_until(lambda: ending.statuses == [[200], [200]])
        await loop.pass_time(4, STEP_S)
        late, probe = ending.site.connect(), ending.site.connect()
        await late.send(request({"inputs": "a"}))
        await probe.send(b"GET /health/ready HTTP/1.1\r\nhost: x\r\n\r\n")
        await loop.turn_until(lambda: late.statuses + probe.statuses == [200, 503])
        assert not ending.shutdown.done()
        await loop.pass_time(1 + GRACE_S / 4, STEP_S)
        assert ending.shutdown.done()

    on_an_ending(models, check, drain_s=5.0)
