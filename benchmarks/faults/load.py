"""More load than the server can serve, nearly as much for a long time, and lists beside single texts."""

import asyncio
import statistics
from collections.abc import Iterator
from dataclasses import replace

from benchmarks.faults.report import Options, Report
from benchmarks.harness.client import Answer, Connection
from benchmarks.harness.load import Answers, OpenLoop, closed_loop, meanwhile
from benchmarks.harness.metrics import scrape
from benchmarks.harness.servers import Samples, our_service
from benchmarks.harness.statistics import growth, milliseconds
from benchmarks.harness.texts import Texts

QUEUE_MS = 250
CALLERS = 12  # enough to keep every runner busy, too few to fill the queue
FACTOR = 4
REFUSED_IN_S = 0.05
OVERLOAD_GROWTH = 0.05
FULL_SPEED = 0.85  # of the capacity before: two runs of a shared machine differ by some
RECOVERY_S = 1.0
LATE_S = 0.1

SOAK_LOAD = 0.8
CONNECTIONS = 64
SOAK_GROWTH = 0.02
PART_S = 60.0  # after which connections are opened anew

LIST = 512
SINGLE_CALLERS = (1, 8, 32)
LIMIT = 3.0
ROUNDS = 3


async def overload(options: Options) -> Report:
    """Four times the load that the server can serve: who is let in waits a bounded time, the rest hear 429 at once."""
    report, requests, samples = Report(), Texts().heavy(), Samples()
    async with our_service(options.models, options.settings(max_queue_ms=QUEUE_MS)) as server:
        capacity = (await closed_loop(server.port, requests, CALLERS, 5, warm_up_s=3)).rate
        loop = OpenLoop(server.port, requests, FACTOR * capacity, options.duration_s(60, 15))
        async with meanwhile(samples.take(server, 0.25)):
            await loop.send()
        rest = asyncio.create_task(loop.answers())
        afterwards = await closed_loop(server.port, requests, CALLERS, 5, warm_up_s=RECOVERY_S)
        answers = await rest

    late = loop.lateness_s(answers)
    accepted, refused = answers.percentile_s(99), answers.percentile_s(99, 429)
    report.check("the generator keeps its rate", f"p99 of lateness {milliseconds(late)}", late <= LATE_S)
    only = len(answers.of(200, 429)) == len(answers.all)
    report.check("every answer is 200 or 429", answers.statuses(), only and bool(answers.of(429)))
    hinted = sum("retry-after" in answer.headers for answer in answers.of(429))
    report.check("429 has Retry-After", f"{hinted} of {len(answers.of(429))}", hinted == len(answers.of(429)) > 0)
    limit_s = 2 * QUEUE_MS / 1000
    report.check(f"p99 of accepted ≤ {milliseconds(limit_s)}", milliseconds(accepted), accepted <= limit_s)
    report.check(f"p99 to a 429 < {milliseconds(REFUSED_IN_S)}", milliseconds(refused), refused < REFUSED_IN_S)
    memory = growth(samples.rss_bytes)
    report.check(f"memory grows ≤ {OVERLOAD_GROWTH:.0%}", f"{memory:+.1%}", memory <= OVERLOAD_GROWTH)
    speed = afterwards.rate / capacity
    report.check(
        f"after {RECOVERY_S:g} s ≥ {FULL_SPEED:.0%} of the capacity",
        f"{speed:.0%}, {len(afterwards.of(429))} × 429",
        speed >= FULL_SPEED and not afterwards.of(429),
    )
    report.figures = {
        "capacity_per_s": capacity,
        "offered_per_s": FACTOR * capacity,
        "served_per_s": answers.rate,
        "accepted_p50_s": answers.percentile_s(50),
        "accepted_p99_s": accepted,
        "refused_p50_s": answers.percentile_s(50, 429),
        "refused_p99_s": refused,
        "memory_growth": memory,
        "speed_after": speed,
        "lateness_p99_s": late,
        "unanswered": answers.unanswered,
    }
    return report


async def soak(options: Options) -> Report:
    """80 % of the capacity for a long time: memory, threads and descriptors do not grow."""
    report, requests, samples = Report(), Texts().heavy(), Samples()
    seconds = options.duration_s(3600, 300)
    found: list[Answer] = []
    late_s = 0.0
    async with our_service(options.models, options.settings()) as server:
        capacity = (await closed_loop(server.port, requests, 16, 5, warm_up_s=3)).rate
        await asyncio.sleep(1)
        before = server.descriptors()
        async with meanwhile(samples.take(server, max(0.25, seconds / 1000))):
            for part_s in _parts(seconds):
                loop = OpenLoop(server.port, requests, SOAK_LOAD * capacity, part_s)
                await loop.send(CONNECTIONS)
                part = await loop.answers()
                late_s = max(late_s, loop.lateness_s(part))
                found += [replace(answer, headers={}, body=b"") for answer in part.all]  # an hour's would fill memory
        answers = Answers(found, seconds)
        await asyncio.sleep(1)  # until the server has noticed that its callers left
        after = server.descriptors()

    memory, most = growth(samples.rss_bytes), max(samples.rss_bytes) / 2**20
    report.check(
        f"{seconds:g} s: memory grows < {SOAK_GROWTH:.0%} after the first quarter",
        f"{memory:+.2%} of {most:.0f} MiB",
        memory < SOAK_GROWTH,
    )
    tenth = max(1, len(samples.threads) // 10)
    early, late = max(samples.threads[: 2 * tenth]), max(samples.threads[-tenth:])
    report.check("threads do not grow", f"{early} → {late}", late <= early)
    report.check("descriptors do not grow", f"{before} → {after}", after <= before)
    report.check("everything is answered 200", answers.statuses(), answers.failed == 0)
    report.figures = {
        "seconds": seconds,
        "capacity_per_s": capacity,
        "served_per_s": answers.rate,
        "p50_s": answers.percentile_s(50),
        "p99_s": answers.percentile_s(99),
        "memory_growth": memory,
        "memory_mib": most,
        "threads": late,
        "lateness_p99_s": late_s,
        "unanswered": answers.unanswered,
    }
    return report


async def sizes(options: Options) -> Report:
    """One client sends lists of 512 texts all the time: single texts do not wait for them, and it gets its share."""
    report, texts = Report(), Texts()
    seconds = options.duration_s(5, 3)
    async with our_service(options.models, options.settings()) as server:
        await closed_loop(server.port, texts.short(), 8, 2)
        for callers in SINGLE_CALLERS:
            alone: list[Answers] = []
            beside: list[Answers] = []
            computed = 0  # texts, beside the lists
            for _ in range(ROUNDS):
                alone.append(await closed_loop(server.port, texts.short(), callers, seconds))
                async with meanwhile(_send_lists(server.port, texts.lists(LIST))):
                    await asyncio.sleep(0.5)
                    before = await scrape(server.port)
                    beside.append(await closed_loop(server.port, texts.short(), callers, seconds))
                    computed += (await scrape(server.port)).texts_since(before, options.first_stage)
            p99_alone, p99 = (statistics.median(part.percentile_s(99) for part in parts) for parts in (alone, beside))
            report.check(
                f"callers of single texts, {callers}: p99 ≤ {LIMIT:g} × that without the lists",
                f"{milliseconds(p99)} over {milliseconds(p99_alone)} = {p99 / p99_alone:.1f} ×",
                p99 <= LIMIT * p99_alone and not any(part.failed for part in (*alone, *beside)),
            )
            share, fair = 1 - sum(len(part.of(200)) for part in beside) / computed, 1 / (callers + 1)
            report.check(
                f"callers of single texts, {callers}: the client of lists has at least one caller's share of the texts",
                f"{share:.1%} of {computed}, a caller's is {fair:.1%}",
                share >= fair,
            )
            report.figures |= {
                f"alone_{callers}_p99_s": p99_alone,
                f"beside_{callers}_p99_s": p99,
                f"alone_{callers}_p50_s": statistics.median(part.percentile_s(50) for part in alone),
                f"beside_{callers}_p50_s": statistics.median(part.percentile_s(50) for part in beside),
                f"share_of_lists_{callers}": share,
            }
    return report


async def _send_lists(port: int, requests: Iterator[bytes]) -> None:
    connection = await Connection.open(port)
    try:
        while True:
            answer = await connection.send(next(requests))
            if answer.status != 200:
                raise RuntimeError(f"a list was answered {answer.status}")
    finally:
        connection.close()


def _parts(seconds: float) -> Iterator[float]:
    while seconds > 0:
        yield min(PART_S, seconds)
        seconds -= PART_S
