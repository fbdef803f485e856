"""80 % of the capacity for a long time: memory, threads and descriptors do not grow."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace

from benchmarks.faults.client import Answer
from benchmarks.faults.figures import growth
from benchmarks.faults.load import Answers, OpenLoop, closed_loop, unanswered
from benchmarks.faults.report import Options, Report
from benchmarks.faults.sampler import sampled
from benchmarks.faults.server import started
from benchmarks.faults.texts import Texts

LOAD = 0.8
CONNECTIONS = 64
MEMORY_GROWTH = 0.02
PART_S = 60.0  # after which connections are opened anew


async def measure(options: Options) -> Report:
    """Measure the capacity, then send four fifths of it."""
    report = Report()
    seconds = options.duration_s(3600, 300)
    requests = Texts().heavy()
    async with started(options.models, {}) as server:
        await closed_loop(server.port, requests, 16, 3)
        capacity = (await closed_loop(server.port, requests, 16, 5)).rate
        await asyncio.sleep(1)
        before = server.descriptors()
        found: list[Answer] = []
        late_s = 0.0
        async with sampled(server, max(0.25, seconds / 1000)) as samples:
            for part_s in _parts(seconds):
                loop = OpenLoop(server.port, requests, LOAD * capacity, part_s)
                await loop.send(CONNECTIONS)
                part = await loop.answers()
                late_s = max(late_s, loop.lateness_s(part))
                found += [replace(answer, headers={}, body=b"") for answer in part.all]  # an hour's would fill memory
        answers = Answers(found, seconds)
        await asyncio.sleep(1)  # until the server has noticed that its callers left
        after = server.descriptors()

    memory = growth(samples.rss_bytes)
    report.check(
        f"{seconds:g} s: memory grows < {MEMORY_GROWTH:.0%} after the first quarter",
        f"{memory:+.2%} of {max(samples.rss_bytes) / 2**20:.0f} MiB",
        memory < MEMORY_GROWTH,
    )
    tenth = max(1, len(samples.threads) // 10)
    early, late = max(samples.threads[: 2 * tenth]), max(samples.threads[-tenth:])
    report.check("threads do not grow", f"{early} → {late}", late <= early)
    report.check("descriptors do not grow", f"{before} → {after}", after <= before)
    report.check("everything is answered 200", f"{answers.statuses()}", len(answers.of(200)) == len(answers.all))
    report.figures = {
        "seconds": seconds,
        "capacity_per_s": capacity,
        "served_per_s": answers.rate,
        "p50_s": answers.percentile_s(0.5),
        "p99_s": answers.percentile_s(0.99),
        "memory_growth": memory,
        "memory_mib": max(samples.rss_bytes) / 2**20,
        "threads": late,
        "lateness_p99_s": late_s,
        "unanswered": unanswered(answers.all),
    }
    return report


def _parts(seconds: float) -> Iterator[float]:
    while seconds > 0:
        yield min(PART_S, seconds)
        seconds -= PART_S
