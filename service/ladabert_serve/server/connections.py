"""All connections of one server: how many there may be, and which of them take too long."""

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

from ladabert_serve.settings import Settings

SWEEP_S = 0.25


class Checked(Protocol):
    """A connection as the table sees it."""

    @property
    def busy(self) -> bool:
        """Whether a request is being answered."""

    @property
    def asked(self) -> bool:
        """Whether a request came, ever."""

    def abort(self) -> None:
        """End it at once."""

    def expect_no_more(self) -> None:
        """Close it after the answer to the last request that came."""

    def check(self, now: float) -> None:
        """End it when it takes too long."""


class Connections:
    """Every connection of one server, least recently used first; closes those that take too long."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self.settings = settings
        self.clock = clock
        self.draining = False
        self._connections: dict[Checked, None] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._connections)

    @property
    def idle(self) -> int:
        """Connections on which no request is being answered."""
        return sum(not connection.busy for connection in self._connections)

    def add(self, connection: Checked) -> bool:
        """Take a new connection in, in the place of the longest idle one if need be; False when all are busy."""
        if len(self._connections) >= self.settings.max_connections:
            idle = [other for other in self._connections if not other.busy]
            if not idle:
                return False
            longest = next((other for other in idle if not other.asked), idle[0])  # without a request, if there is one
            del self._connections[longest]
            longest.abort()
        self.used(connection)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(SWEEP_S, self._sweep)
        return True

    def used(self, connection: Checked) -> None:
        """Count a connection as the most recently used one."""
        self._connections.pop(connection, None)
        self._connections[connection] = None

    def remove(self, connection: Checked) -> None:
        """Forget a connection that ended."""
        self._connections.pop(connection, None)
        if not self._connections and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def drain(self) -> None:
        """Let every answer from now on be its connection's last."""
        self.draining = True
        for connection in self._connections:
            connection.expect_no_more()

    def _sweep(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(SWEEP_S, self._sweep)
        now = self.clock()
        for connection in list(self._connections):
            connection.check(now)
