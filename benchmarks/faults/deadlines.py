"""Deadlines shorter than the queue: 504 on time, what was not begun is dropped, and the metrics add up.

The server's access log tells of each request how long it was queued, and so whether and when a run took its text.
"""

import asyncio
import itertools
import json
from collections.abc import Iterator

from benchmarks.faults.client import classify
from benchmarks.faults.figures import percentile
from benchmarks.faults.load import Answers, OpenLoop, closed_loop
from benchmarks.faults.report import Options, Report, milliseconds
from benchmarks.faults.scrape import disagreements, settled, texts_computed
from benchmarks.faults.server import started
from benchmarks.faults.texts import Texts

RUNNERS = 2
BATCH_SIZE = 16
BACKLOG_S = 4.0  # of work that waits in front of the impatient
IMPATIENT_S = 1.5  # during which they come
IMPATIENT_RATE = 60.0
DEADLINES_MS = (100, 300, 1000)
LATE_S = 0.05
LATE = "late"  # begins the ids of requests with a deadline
EARLY_S = 0.01  # the request may leave a little before the time that is noted


async def measure(options: Options) -> Report:
    """Queue work for some seconds, then send requests that cannot wait for it."""
    report = Report()
    texts = Texts()
    settings = {
        "runners": RUNNERS,
        "max_batch_size": BATCH_SIZE,
        "max_queue_ms": 60000,
        "access_log": True,
        "log_format": "json",
    }
    impatient: dict[int, Answers] = {}
    async with started(options.models, settings) as server:
        await closed_loop(server.port, texts.heavy(), 8, 2)
        capacity = (await closed_loop(server.port, texts.heavy(), 12, 3)).rate
        before = await settled(server.port)
        backlog = OpenLoop(server.port, texts.heavy(), BACKLOG_S * capacity, 1)
        await backlog.send()
        loops = {
            deadline_ms: OpenLoop(server.port, _impatient(texts, deadline_ms), IMPATIENT_RATE, IMPATIENT_S)
            for deadline_ms in DEADLINES_MS
        }
        await asyncio.gather(*(loop.send() for loop in loops.values()))
        for deadline_ms, loop in loops.items():
            impatient[deadline_ms] = await loop.answers()
        patient = await backlog.answers()
        after = await settled(server.port)
        log = server.log

    everything = [*patient.all, *(answer for answers in impatient.values() for answer in answers.all)]
    for deadline_ms, answers in impatient.items():
        over = [answer.seconds - deadline_ms / 1000 for answer in answers.of(504)]
        late = percentile(over, 1)
        report.check(
            f"deadline {deadline_ms} ms: 504 not early and ≤ {milliseconds(LATE_S)} late",
            f"{answers.statuses()}, {milliseconds(min(over, default=0))} to {milliseconds(late)} late",
            bool(over) and late <= LATE_S and min(over) >= -EARLY_S and len(answers.of(200, 504)) == len(answers.all),
        )
        report.figures[f"late_{deadline_ms}_ms_p50_s"] = percentile(over, 0.5)
        report.figures[f"late_{deadline_ms}_ms_max_s"] = late
    report.check("the patient get 200", f"{patient.statuses()}", len(patient.of(200)) == len(patient.all))
    begun = begun_after_ms(log)
    late_texts = sum(len(answers.of(504)) for answers in impatient.values())
    too_late = [request for request, ms in begun.items() if ms > int(request.split("-")[1])]
    report.check(
        f"of the {late_texts} texts whose answer would come too late, none is begun after its deadline",
        f"{len(begun)} begun before, {len(too_late)} after",
        late_texts > 0 and not too_late,
    )
    answered = sum(len(answer.json()["predictions"]) for answer in Answers(everything, 1).of(200))
    computed = texts_computed(before, after)
    report.check(
        "texts computed are those answered and those begun before their deadline, and no other",
        f"{computed} = {answered} + {len(begun)}",
        computed == answered + len(begun),
    )
    wrong = disagreements(everything, before, after)
    report.check("metrics and callers count the same", "; ".join(wrong) or "the same", not wrong)
    report.figures |= {"late_texts": late_texts, "begun_texts": len(begun)}
    return report


def _impatient(texts: Texts, deadline_ms: int) -> Iterator[bytes]:
    """Requests of one long text each, whose ids say their deadline."""
    for number in itertools.count():
        yield classify(texts.text(110, 126), deadline_ms, f"{LATE}-{deadline_ms}-{number}")


def begun_after_ms(log: str) -> dict[str, float]:
    """For each late request whose text a run took: how long after its admission, by the access log."""
    begun = {}
    for line in log.splitlines():
        fields = json.loads(line) if line.startswith("{") else {}
        request_id = fields.get("request_id", "")
        if request_id.startswith(LATE) and fields["status"] == 504 and "queue_ms" in fields:
            begun[request_id] = fields["tokenize_ms"] + fields["queue_ms"]
    return begun
