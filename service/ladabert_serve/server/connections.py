"""All connections of one server: how many there may be, and which of them take too long."""

import asyncio
import contextlib
import ctypes
import itertools
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from ladabert_serve.settings import Settings

if TYPE_CHECKING:
    from ladabert_serve.server.connection import Connection

SWEEP_S = 0.25
FLOOD = 64  # closed connections after which freed memory goes back to the system


class Connections:
    """Every connection of one server, least recently used first; closes those that take too long."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self.settings = settings
        self.clock = clock
        self.draining = False
        self._unused: dict[Connection, None] = {}  # on which no request came yet
        self._used: dict[Connection, None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._most = 0  # connections at once since memory was last given back

    def __len__(self) -> int:
        return len(self._unused) + len(self._used)

    @property
    def idle(self) -> int:
        """Connections on which no request is being answered."""
        return sum(not connection.busy for connection in self._all())

    def add(self, connection: "Connection") -> bool:
        """Add a new connection, if need be in place of the longest idle one; return False when all are busy.

        Connections that never sent a request are replaced first, so that a flood of them ends no connection in use.
        """
        if len(self) >= self.settings.max_connections:
            idle = next((other for other in self._all() if not other.busy), None)
            if idle is None:
                return False
            self._forget(idle)
            idle.abort()
        self._unused[connection] = None
        self._most = max(self._most, len(self))
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(SWEEP_S, self._sweep)
        return True

    def used(self, connection: "Connection") -> None:
        """Count a connection as the most recently used one."""
        self._forget(connection)
        self._used[connection] = None

    def remove(self, connection: "Connection") -> None:
        """Forget a connection that ended."""
        self._forget(connection)
        if not len(self) and self._timer is not None and self._most <= FLOOD:
            self._timer.cancel()
            self._timer = None

    def drain(self) -> None:
        """Let every answer from now on be its connection's last."""
        self.draining = True
        for connection in self._all():
            connection.expect_no_more()

    def _all(self) -> Iterator["Connection"]:
        return itertools.chain(self._unused, self._used)

    def _forget(self, connection: "Connection") -> None:
        self._unused.pop(connection, None)
        self._used.pop(connection, None)

    def _sweep(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(SWEEP_S, self._sweep) if len(self) else None
        now = self.clock()
        for connection in list(self._all()):
            connection.check(now)
        if self._most > len(self) + FLOOD:
            self._most = len(self)
            with contextlib.suppress(AttributeError):  # a C library other than glibc
                ctypes.CDLL(None).malloc_trim(0)  # gives memory back to the system, which by itself it keeps
