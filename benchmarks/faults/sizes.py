"""One client sends lists of 512 texts all the time: single texts do not wait for them, and it gets its share."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator

from benchmarks.faults.client import Connection
from benchmarks.faults.figures import median
from benchmarks.faults.load import Answers, closed_loop
from benchmarks.faults.report import Options, Report, milliseconds
from benchmarks.faults.scrape import scrape, texts_computed
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
            computed = answered = 0  # texts, beside the lists
            for _ in range(ROUNDS):
                alone.append(await closed_loop(server.port, texts.short(), callers, seconds))
                async with _lists(server.port, texts.lists(LIST)):
                    await asyncio.sleep(0.5)
                    before = await scrape(server.port)
                    beside.append(await closed_loop(server.port, texts.short(), callers, seconds))
                    computed += texts_computed(before, await scrape(server.port))
                answered += len(beside[-1].of(200))
            p99_alone, p99 = (median(part.percentile_s(0.99) for part in parts) for parts in (alone, beside))
            refused = sum(len(part.all) - len(part.of(200)) for part in (*alone, *beside))
            report.check(
                f"{callers} single callers: p99 ≤ {LIMIT:g} × that without the lists",
                f"{milliseconds(p99)} over {milliseconds(p99_alone)} = {p99 / p99_alone:.1f} ×",
                p99 <= LIMIT * p99_alone and refused == 0,
            )
            share, fair = 1 - answered / computed, 1 / (callers + 1)
            report.check(
                f"{callers} single callers: the client of lists has at least one caller's share of the texts",
                f"{share:.1%} of {computed}, a caller's is {fair:.1%}",
                share >= fair,
            )
            report.figures |= {
                f"alone_{callers}_p99_s": p99_alone,
                f"beside_{callers}_p99_s": p99,
                f"alone_{callers}_p50_s": median(part.percentile_s(0.5) for part in alone),
                f"beside_{callers}_p50_s": median(part.percentile_s(0.5) for part in beside),
                f"share_of_lists_{callers}": share,
            }
    return report


@contextlib.asynccontextmanager
async def _lists(port: int, requests: Iterator[bytes]) -> AsyncIterator[None]:
    """Send lists one after the other until the context is left."""
    connection = await Connection.open(port)

    async def send() -> None:
        while True:
            answer = await connection.send(next(requests))
            if answer.status != 200:
                raise RuntimeError(f"a list was answered {answer.status}")

    task = asyncio.create_task(send())
    try:
        yield
    finally:
        task.cancel()
        connection.close()
        with contextlib.suppress(asyncio.CancelledError):
            await task
