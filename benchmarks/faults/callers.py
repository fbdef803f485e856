"""Callers who hang up, and callers whose deadline is shorter than the queue."""

import asyncio
import itertools
import json
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.faults.report import Options, Report
from benchmarks.harness.client import Answer, Connection, classify
from benchmarks.harness.load import MARGIN_S, Answers, OpenLoop, closed_loop
from benchmarks.harness.metrics import disagreements, scrape, settled
from benchmarks.harness.servers import our_service
from benchmarks.harness.statistics import milliseconds, percentile
from benchmarks.harness.texts import Texts

RUNNERS = 2
BATCH_SIZE = 8
AHEAD = 64  # texts that keep the runners busy while the others arrive
LEAVE_AFTER_S = 0.005
STAYING = 100
LEAVING = 100
ROUNDS = 5
UNAFFECTED = 1.25  # times as long; were all the texts computed, it would be 1.6

BACKLOG_S = 4.0  # of work that waits in front of the impatient
IMPATIENT_S = 1.5  # during which they come
IMPATIENT_RATE = 60.0
DEADLINES_MS = (100, 300, 1000)
LATE_S = 0.05
LATE = "late"  # begins the ids of requests with a deadline
EARLY_S = 0.01  # the request may leave a little before the time that is noted


@dataclass(frozen=True, slots=True)
class Burst:
    """What became of those who stayed, and how long until the last of them had an answer."""

    answers: list[Answer]
    seconds: float


async def hang_up(options: Options) -> Report:
    """Half of the callers hang up right after sending: their texts are not computed, the others notice nothing.

    Bursts with and without callers who leave take turns.
    """
    report, texts = Report(), Texts()
    settings = {"runners": RUNNERS, "max_batch_size": BATCH_SIZE, "max_queue_ms": 60000}
    with_leavers, without, wasted, cancelled, answered = [], [], [], [], []
    async with our_service(options.models, options.settings(**settings)) as server:
        await closed_loop(server.port, texts.heavy(), 8, 2)
        for _ in range(ROUNDS):
            without.append(await _burst(server.port, texts, 0))
            before = await settled(server.port)
            with_leavers.append(await _burst(server.port, texts, LEAVING))
            after = await settled(server.port)
            wasted.append(after.texts_since(before, options.first_stage) - AHEAD - STAYING)
            cancelled.append(after.grown(before, "ladabert_rejected_total", reason="cancelled"))
            answered.append(after.grown(before, "ladabert_requests_total", status="200"))
        empty = (await scrape(server.port)).total("ladabert_queue_depth")

    running = RUNNERS * BATCH_SIZE
    report.check(
        f"of {LEAVING} texts whose callers left, at most the {running} that run already are computed",
        sorted(wasted),
        max(wasted) <= running and min(wasted) >= 0,
    )
    exact = all(left + got == AHEAD + STAYING + LEAVING for left, got in zip(cancelled, answered, strict=True))
    report.check(
        "cancelled and answered requests add up to those sent, and most that left are counted as cancelled",
        f"cancelled {sorted(cancelled)}",
        exact and min(cancelled) >= LEAVING - running,
    )
    seconds = [burst.seconds for burst in with_leavers]
    stayed = Answers([answer for burst in with_leavers for answer in burst.answers], sum(seconds))
    report.check("everybody who stayed gets 200", f"{stayed.unanswered} without an answer", stayed.failed == 0)
    ratio = statistics.median(seconds) / statistics.median(burst.seconds for burst in without)
    report.check(f"they wait ≤ {UNAFFECTED:g} × as long as without leavers", f"{ratio:.2f} ×", ratio <= UNAFFECTED)
    report.check("the queue is empty afterwards", f"{empty:g}", empty == 0)
    report.figures = {
        "wasted_texts_max": max(wasted),
        "cancelled_median": statistics.median(cancelled),
        "staying_ratio": ratio,
        "staying_p99_s": stayed.percentile_s(99),
    }
    return report


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


async def leave(port: int) -> None:
    """Send requests and hang up before the answer, again and again."""
    requests = Texts().short()
    while True:
        connection = await Connection.open(port)
        connection.write(next(requests))
        await asyncio.sleep(LEAVE_AFTER_S)
        connection.close()


async def deadlines(options: Options) -> Report:
    """Deadlines shorter than the queue: 504 on time, what was not begun is dropped, and the metrics add up.

    The server's access log tells of each request how long it was queued, and so whether and when a run took its text.
    """
    report, texts = Report(), Texts()
    log_settings = {"access_log": True, "log_format": "json"}
    settings = {"runners": RUNNERS, "max_batch_size": 2 * BATCH_SIZE, "max_queue_ms": 60000, **log_settings}
    async with our_service(options.models, options.settings(**settings)) as server:
        capacity = (await closed_loop(server.port, texts.heavy(), 12, 3, warm_up_s=2)).rate
        before = await settled(server.port)
        backlog = OpenLoop(server.port, texts.heavy(), BACKLOG_S * capacity, 1)
        await backlog.send()
        loops = {
            deadline_ms: OpenLoop(server.port, _impatient(texts, deadline_ms), IMPATIENT_RATE, IMPATIENT_S)
            for deadline_ms in DEADLINES_MS
        }
        await asyncio.gather(*(loop.send() for loop in loops.values()))
        impatient = {deadline_ms: await loop.answers() for deadline_ms, loop in loops.items()}
        patient = await backlog.answers()
        after = await settled(server.port)
        log = server.log

    everything = Answers([*patient.all, *(answer for answers in impatient.values() for answer in answers.all)], 1)
    for deadline_ms, answers in impatient.items():
        over = [answer.seconds - deadline_ms / 1000 for answer in answers.of(504)]
        late = percentile(over, 100)
        report.check(
            f"deadline {deadline_ms} ms: 504 not early and ≤ {milliseconds(LATE_S)} late",
            f"{answers.statuses()}, {milliseconds(min(over, default=0))} to {milliseconds(late)} late",
            bool(over) and late <= LATE_S and min(over) >= -EARLY_S and len(answers.of(200, 504)) == len(answers.all),
        )
        report.figures[f"late_{deadline_ms}_ms_p50_s"] = percentile(over, 50)
        report.figures[f"late_{deadline_ms}_ms_max_s"] = late
    report.check("requests without a short deadline get 200", patient.statuses(), patient.failed == 0)
    begun, late_texts = begun_after_ms(log), len(everything.of(504))
    too_late = [request for request, ms in begun.items() if ms > int(request.split("-")[1])]
    report.check(
        f"of the {late_texts} texts whose answer would come too late, none is begun after its deadline",
        f"{len(begun)} begun before, {len(too_late)} after",
        late_texts > 0 and not too_late,
    )
    answered = sum(len(answer.json()["predictions"]) for answer in everything.of(200))
    computed = after.texts_since(before, options.first_stage)
    report.check(
        "texts computed are those answered and those begun before their deadline, and no other",
        f"{computed} = {answered} + {len(begun)}",
        computed == answered + len(begun),
    )
    wrong = disagreements(everything.all, before, after)
    report.check("metrics and callers count the same", "; ".join(wrong) or "the same", not wrong)
    report.figures |= {"late_texts": late_texts, "begun_texts": len(begun)}
    return report


def _impatient(texts: Texts, deadline_ms: int) -> Iterator[bytes]:
    """Yield requests of one long text each, whose ids say their deadline."""
    for number in itertools.count():
        yield classify(texts.text(110, 126), deadline_ms, f"{LATE}-{deadline_ms}-{number}")


def begun_after_ms(log: str) -> dict[str, float]:
    """Return, for each late request whose text a run took, how long after its admission, by the access log."""
    begun = {}
    for line in log.splitlines():
        fields = json.loads(line) if line.startswith("{") else {}
        request_id = fields.get("request_id", "")
        if request_id.startswith(LATE) and fields["status"] == 504 and "queue_ms" in fields:
            begun[request_id] = fields["tokenize_ms"] + fields["queue_ms"]
    return begun
