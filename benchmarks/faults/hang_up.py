"""Half of the callers hang up right after sending: their texts are not computed, the others notice nothing."""

import asyncio
import time
from dataclasses import dataclass

from benchmarks.faults.client import Answer, Connection, classify
from benchmarks.faults.figures import median, percentile
from benchmarks.faults.load import MARGIN_S, closed_loop, unanswered
from benchmarks.faults.report import Options, Report
from benchmarks.faults.scrape import scrape, settled, texts_computed
from benchmarks.faults.server import started
from benchmarks.faults.texts import Texts

RUNNERS = 2
BATCH_SIZE = 8
AHEAD = 64  # texts that keep the runners busy while the others arrive
STAYING = 100
LEAVING = 100
ROUNDS = 5
UNAFFECTED = 1.25  # times as long; were all the texts computed, it would be 1.6


@dataclass(frozen=True, slots=True)
class Burst:
    """What became of those who stayed, and how long until the last of them had an answer."""

    answers: list[Answer]
    seconds: float


async def _burst(port: int, texts: Texts, leaving: int) -> Burst:
    connections = [await Connection.open(port) for _ in range(AHEAD + STAYING + leaving)]
    requests = [classify(texts.text(110, 126)) for _ in connections]
    staying = []
    leavers = 0
    began = time.perf_counter()
    for number, (connection, request) in enumerate(zip(connections, requests, strict=True)):
        if leavers < leaving and number >= AHEAD and (number - AHEAD) % 2:
            connection.send(request)
            connection.close()
            leavers += 1
        else:
            staying.append(connection.send(request))
    answers = await asyncio.wait_for(asyncio.gather(*staying), MARGIN_S)
    ended = time.perf_counter()
    for connection in connections:
        connection.close()
    return Burst(answers, ended - began)


async def measure(options: Options) -> Report:
    """Send bursts with and without callers who leave, taking turns."""
    report = Report()
    texts = Texts()
    settings = {"runners": RUNNERS, "max_batch_size": BATCH_SIZE, "max_queue_ms": 60000}
    with_leavers, without, wasted, cancelled, answered = [], [], [], [], []
    async with started(options.models, settings) as server:
        await closed_loop(server.port, texts.heavy(), 8, 2)
        for _ in range(ROUNDS):
            without.append(await _burst(server.port, texts, 0))
            before = await settled(server.port)
            burst = await _burst(server.port, texts, LEAVING)
            after = await settled(server.port)
            with_leavers.append(burst)
            wasted.append(texts_computed(before, after) - AHEAD - STAYING)
            cancelled.append(after.grown(before, "ladabert_rejected_total", reason="cancelled"))
            answered.append(after.grown(before, "ladabert_requests_total", status="200"))
        empty = (await scrape(server.port)).total("ladabert_queue_depth")

    running = RUNNERS * BATCH_SIZE
    report.check(
        f"of {LEAVING} texts whose callers left, at most the {running} that run already are computed",
        f"{sorted(wasted)}",
        max(wasted) <= running and min(wasted) >= 0,
    )
    exact = all(left + got == AHEAD + STAYING + LEAVING for left, got in zip(cancelled, answered, strict=True))
    report.check(
        "cancelled and answered requests add up to those sent, and most that left are counted as cancelled",
        f"cancelled {sorted(cancelled)}",
        exact and min(cancelled) >= LEAVING - running,
    )
    lost = sum(unanswered(burst.answers) for burst in with_leavers)
    good = all(answer.status == 200 for burst in with_leavers for answer in burst.answers)
    report.check("everybody who stayed gets 200", f"{lost} without an answer", good)
    ratio = median(burst.seconds for burst in with_leavers) / median(burst.seconds for burst in without)
    report.check(f"they wait ≤ {UNAFFECTED:g} × as long as without leavers", f"{ratio:.2f} ×", ratio <= UNAFFECTED)
    report.check("the queue is empty afterwards", f"{empty:g}", empty == 0)
    p99 = percentile((answer.seconds for burst in with_leavers for answer in burst.answers), 0.99)
    report.figures = {
        "wasted_texts_max": max(wasted),
        "cancelled_median": median(cancelled),
        "staying_ratio": ratio,
        "staying_p99_s": p99,
    }
    return report
