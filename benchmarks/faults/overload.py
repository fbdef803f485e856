"""Four times the load that the server can serve: who is let in waits a bounded time, the rest hear 429 at once."""

import asyncio

from benchmarks.faults.figures import growth
from benchmarks.faults.load import OpenLoop, closed_loop, unanswered
from benchmarks.faults.report import Options, Report, milliseconds
from benchmarks.faults.sampler import sampled
from benchmarks.faults.server import started
from benchmarks.faults.texts import Texts

QUEUE_MS = 250
CALLERS = 12  # enough to keep every runner busy, too few to fill the queue
FACTOR = 4
REFUSED_IN_S = 0.05
MEMORY_GROWTH = 0.05
FULL_SPEED = 0.85  # of the capacity before: two runs of a shared machine differ by some
RECOVERY_S = 1.0
LATE_S = 0.1


async def measure(options: Options) -> Report:
    """Measure the capacity, send four times as much, and see whether the capacity is back after a second."""
    report = Report()
    requests = Texts().heavy()
    async with started(options.models, {"max_queue_ms": QUEUE_MS}) as server:
        await closed_loop(server.port, requests, CALLERS, 3)
        capacity = (await closed_loop(server.port, requests, CALLERS, 5)).rate
        overload = OpenLoop(server.port, requests, FACTOR * capacity, options.duration_s(60, 15))
        async with sampled(server) as samples:
            await overload.send()
        rest = asyncio.create_task(overload.answers())
        await closed_loop(server.port, requests, CALLERS, RECOVERY_S)
        afterwards = await closed_loop(server.port, requests, CALLERS, 5)
        answers = await rest

    late = overload.lateness_s(answers)
    accepted, refused = answers.percentile_s(0.99), answers.percentile_s(0.99, 429)
    report.check("the generator keeps its rate", f"p99 of lateness {milliseconds(late)}", late <= LATE_S)
    others = {status: count for status, count in answers.statuses().items() if status not in (200, 429)}
    report.check("every answer is 200 or 429", f"{answers.statuses()}", not others and bool(answers.of(429)))
    hinted = sum("retry-after" in answer.headers for answer in answers.of(429))
    report.check("429 has Retry-After", f"{hinted} of {len(answers.of(429))}", hinted == len(answers.of(429)) > 0)
    limit_s = 2 * QUEUE_MS / 1000
    report.check(f"p99 of accepted ≤ {milliseconds(limit_s)}", milliseconds(accepted), accepted <= limit_s)
    report.check(f"p99 to a 429 < {milliseconds(REFUSED_IN_S)}", milliseconds(refused), refused < REFUSED_IN_S)
    memory = growth(samples.rss_bytes)
    report.check(f"memory grows ≤ {MEMORY_GROWTH:.0%}", f"{memory:+.1%}", memory <= MEMORY_GROWTH)
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
        "accepted_p50_s": answers.percentile_s(0.5),
        "accepted_p99_s": accepted,
        "refused_p50_s": answers.percentile_s(0.5, 429),
        "refused_p99_s": refused,
        "memory_growth": memory,
        "speed_after": speed,
        "lateness_p99_s": late,
        "unanswered": unanswered(answers.all),
    }
    return report
