"""SIGKILL of one worker of two at load: only its requests fail, and two workers are back soon."""

import asyncio
import contextlib
import itertools
import os
import signal
import time
from dataclasses import dataclass

from benchmarks.faults.client import NO_ANSWER, Answer, Connection
from benchmarks.faults.load import MARGIN_S
from benchmarks.faults.report import Options, Report, milliseconds
from benchmarks.faults.scrape import Scrape, scrape, settled
from benchmarks.faults.server import started, wait_for_workers
from benchmarks.faults.texts import Texts

CALLERS = 32
BACK_S = 5.0
SILENCE_S = 1.0  # the longest time in which nobody gets an answer
LOAD_S = 2.0


@dataclass(frozen=True, slots=True)
class Fate:
    """One request's answer, and the port from which it was sent."""

    port: int
    answer: Answer


async def measure(options: Options) -> Report:
    """Kill a worker and follow every caller."""
    report = Report()
    fates: list[Fate] = []
    refused: list[float] = []
    over = asyncio.Event()
    requests = Texts().short()

    async def call() -> None:
        while not over.is_set():
            try:
                connection = await Connection.open(server.port)
            except OSError:
                refused.append(time.perf_counter())
                await asyncio.sleep(0.02)
                continue
            with contextlib.closing(connection):
                while connection.is_open and not over.is_set():
                    fates.append(Fate(connection.port, await connection.send(next(requests))))

    async with started(options.models, {}, workers=2) as server:
        await wait_for_workers(server, 2)  # or the callers' connections would all be the first one's
        before = await settled(server.port)
        callers = [asyncio.create_task(call()) for _ in range(CALLERS)]
        await asyncio.sleep(LOAD_S)
        victim, other = server.workers
        held = server.callers_of(victim)
        killed_at = time.perf_counter()
        os.kill(victim, signal.SIGKILL)
        pages = []
        back = asyncio.create_task(wait_for_workers(server, 2))
        while not back.done() and time.perf_counter() < killed_at + 4 * BACK_S:
            with contextlib.suppress(ValueError):  # the worker died that was asked
                pages.append(await scrape(server.port))
            await asyncio.wait([back], timeout=0.1)
        back_s = time.perf_counter() - killed_at if back.done() else float("inf")
        back.cancel()
        alive = set(server.workers)
        await asyncio.sleep(LOAD_S)
        over.set()
        await asyncio.wait_for(asyncio.gather(*callers), MARGIN_S)
        after = await settled(server.port)
        code, _ = await server.stop()

    failed = [fate for fate in fates if fate.answer.status == NO_ANSWER]
    strangers = [fate for fate in failed if fate.port not in held]
    report.check(
        "only requests that the killed worker held fail",
        f"{len(failed)} of {CALLERS} in flight failed, {len(strangers)} of them held by nobody or the other",
        not strangers and not refused and bool(held),
    )
    wrong = {fate.answer.status for fate in fates} - {200, NO_ANSWER}
    report.check("everybody else gets 200", f"other statuses: {sorted(wrong) or 'none'}", not wrong)
    times = sorted(fate.answer.ended_at for fate in fates if fate.answer.status == 200)
    silence = max(later - earlier for earlier, later in itertools.pairwise(times))
    report.check(f"never silent for {SILENCE_S:g} s", milliseconds(silence), silence < SILENCE_S)
    report.check(
        f"two workers answer again within {BACK_S:g} s",
        milliseconds(back_s),
        back_s <= BACK_S and victim not in alive and other in alive,
    )
    answered = sum(fate.answer.status == 200 for fate in fates)
    grown = after.grown(before, "ladabert_requests_total")
    report.check(
        "metrics: every answer is counted, and no more than what was sent",
        f"{grown:g} counted, {answered} answered, {len(fates)} sent",
        answered <= grown <= len(fates),
    )
    left = after.total("ladabert_requests_in_progress"), after.total("ladabert_queue_depth")
    report.check("metrics: nothing is in progress or queued afterwards", f"{left[0]:g}, {left[1]:g}", left == (0, 0))
    fallen = falls([before, *pages, after])
    report.check("metrics: no counter falls and no series goes", "; ".join(fallen[:3]) or "none", not fallen)
    report.check("SIGTERM afterwards: exit 0", f"{code}", code == 0)
    late = [fate for fate in failed if fate.answer.sent_at > killed_at]
    report.figures = {
        "failed": len(failed),
        "failed_sent_after_kill": len(late),
        "refused": len(refused),
        "back_s": back_s,
        "silence_s": silence,
    }
    return report


def falls(pages: list[Scrape]) -> list[str]:
    """Counters that went down, and series that went, from one page to the next."""
    lines = []
    for earlier, later in itertools.pairwise(pages):
        for series, value in earlier.values.items():
            name = series[0]
            if series not in later.values:
                lines.append(f"{name} went")
            elif name.endswith(("_total", "_count", "_sum", "_bucket")) and later.values[series] < value:
                lines.append(f"{name} fell from {value:g} to {later.values[series]:g}")
    return lines
