"""One client sends lists of 512 texts all the time: single texts do not wait for them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator

from benchmarks.faults.client import Connection
from benchmarks.faults.figures import median
from benchmarks.faults.load import Answers, closed_loop
from benchmarks.faults.report import Options, Report, milliseconds
from benchmarks.faults.server import started
from benchmarks.faults.texts import Texts

LIST = 512
CALLERS = (1, 8, 32)
LIMIT = 3.0
ROUNDS = 3


async def measure(options: Options) -> Report:
    """Measure single texts with and without the lists, taking turns, at several concurrencies."""
    report = Report()
    seconds = options.duration_s(5, 3)
    texts = Texts()
    async with started(options.models, {}) as server:
        await closed_loop(server.port, texts.short(), 8, 2)
        for callers in CALLERS:
            alone: list[Answers] = []
            beside: list[Answers] = []
            lists = 0
            for _ in range(ROUNDS):
                alone.append(await closed_loop(server.port, texts.short(), callers, seconds))
                async with _lists(server.port, texts.lists(LIST)) as answered:
                    await asyncio.sleep(0.5)
                    beside.append(await closed_loop(server.port, texts.short(), callers, seconds))
                lists += len(answered)
            p99_alone, p99 = (median(part.percentile_s(0.99) for part in parts) for parts in (alone, beside))
            refused = sum(len(part.all) - len(part.of(200)) for part in (*alone, *beside))
            report.check(
                f"{callers} single callers: p99 ≤ {LIMIT:g} × that without the lists",
                f"{milliseconds(p99)} over {milliseconds(p99_alone)} = {p99 / p99_alone:.1f} ×, {lists} lists",
                p99 <= LIMIT * p99_alone and lists > 0 and refused == 0,
            )
            report.figures |= {
                f"alone_{callers}_p99_s": p99_alone,
                f"beside_{callers}_p99_s": p99,
                f"alone_{callers}_p50_s": median(part.percentile_s(0.5) for part in alone),
                f"beside_{callers}_p50_s": median(part.percentile_s(0.5) for part in beside),
                f"lists_{callers}": lists,
            }
    return report


@contextlib.asynccontextmanager
async def _lists(port: int, requests: Iterator[bytes]) -> AsyncIterator[list[int]]:
    """Send lists one after the other until the context is left; yields the statuses of the answered ones."""
    connection = await Connection.open(port)
    statuses: list[int] = []

    async def send() -> None:
        while True:
            answer = await connection.send(next(requests))
            if answer.status != 200:
                raise RuntimeError(f"a list was answered {answer.status}")
            statuses.append(answer.status)

    task = asyncio.create_task(send())
    try:
        yield statuses
    finally:
        task.cancel()
        connection.close()
        with contextlib.suppress(asyncio.CancelledError):
            await task
