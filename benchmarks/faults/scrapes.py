"""/metrics scraped again and again under load."""

import asyncio
import contextlib
import time
from collections.abc import Iterator

from benchmarks.faults.report import Options, Report
from benchmarks.harness.client import Answer, Connection, classify
from benchmarks.harness.load import MARGIN_S
from benchmarks.harness.metrics import Scrape, disagreements, scrape, settled
from benchmarks.harness.servers import our_service
from benchmarks.harness.texts import Texts

CALLERS = 32
INTERVAL_S = 0.02
ARRIVED_S = 0.1  # a request sent this long before a scrape has been read by the server
TOO_LATE_MS = 30  # a deadline that many requests miss, so that several statuses are counted


async def metrics(options: Options) -> Report:
    """/metrics under load: in = out + rejected + in progress at every scrape, of servers of one and of two workers."""
    report = Report()
    for workers in (1, 2):
        await _measure(options, workers, options.duration_s(20, 8), report)
    return report


async def _measure(options: Options, workers: int, seconds: float, report: Report) -> None:
    sent: list[float] = []
    answers: list[Answer] = []
    pages: list[Scrape] = []
    off: list[str] = []

    async def call() -> None:
        with contextlib.closing(await Connection.open(server.port)) as connection:
            while time.perf_counter() < end:
                sent.append(time.perf_counter())
                answers.append(await connection.send(next(requests)))

    requests = _requests(Texts())
    async with our_service(options.models, options.settings(), workers=workers) as server:
        before = await settled(server.port)
        end = time.perf_counter() + seconds
        callers = [asyncio.create_task(call()) for _ in range(CALLERS)]
        while time.perf_counter() < end:
            begun = time.perf_counter()
            page = await scrape(server.port)
            pages.append(page)
            taken_in = page.taken_in - before.taken_in
            # `sent` is noted before the bytes leave, so that none is in the server that is not in the list.
            fewest, most = sum(at < begun - ARRIVED_S for at in sent), len(sent)
            if not fewest <= taken_in <= most:
                off.append(f"{taken_in:g} not in {fewest} to {most}")
            await asyncio.sleep(INTERVAL_S)
        await asyncio.wait_for(asyncio.gather(*callers), MARGIN_S)
        after = await settled(server.port)

    name = f"{workers} worker{'s' if workers > 1 else ''}"
    report.check(
        f"{name}: at every scrape, answered and in progress are what was sent",
        f"{len(off)} of {len(pages)} scrapes off" + (f", as {off[0]}" if off else ""),
        not off and len(pages) > 10,
    )
    wrong = disagreements(answers, before, after)
    total = f"{len(answers)} requests, the same"
    report.check(f"{name}: at the end metrics and callers count the same", "; ".join(wrong) or total, not wrong)
    series = {frozenset(page.values) for page in (before, *pages, after)}
    report.check(
        f"{name}: no series appears or disappears", f"different sets of series: {len(series)}", len(series) == 1
    )
    report.figures |= {
        f"scrapes_{workers}": len(pages),
        f"off_{workers}": len(off),
        f"requests_{workers}": len(answers),
    }


def _requests(texts: Texts) -> Iterator[bytes]:
    while True:
        yield classify(texts.text(5, 30))
        yield classify(texts.texts(4, 20, 60), timeout_ms=TOO_LATE_MS)
