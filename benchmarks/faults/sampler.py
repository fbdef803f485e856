"""Looks at a server's memory, threads and descriptors while a load runs."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from benchmarks.faults.server import ServerProcess


@dataclass(slots=True)
class Samples:
    """One value per look, in order."""

    rss_bytes: list[int] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)

    def take(self, server: ServerProcess) -> None:
        """Look once."""
        self.rss_bytes.append(server.rss_bytes())
        self.threads.append(server.threads())
        self.descriptors.append(server.descriptors())


@contextlib.asynccontextmanager
async def sampled(server: ServerProcess, interval_s: float = 0.25) -> AsyncIterator[Samples]:
    """Look at a server until the context is left."""
    samples = Samples()

    async def look() -> None:
        while True:
            samples.take(server)
            await asyncio.sleep(interval_s)

    task = asyncio.create_task(look())
    try:
        yield samples
    finally:
        task.cancel()
