"""Deadlines shorter than the queue: 504 on time, what was not begun is dropped, and the metrics add up."""

import asyncio

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
EARLY_S = 0.01  # the request may leave a little before the time that is noted


async def measure(options: Options) -> Report:
    """Queue work for some seconds, then send requests that cannot wait for it."""
    report = Report()
    texts = Texts()
    settings = {"runners": RUNNERS, "max_batch_size": BATCH_SIZE, "max_queue_ms": 60000}
    impatient: dict[int, Answers] = {}
    async with started(options.models, settings) as server:
        await closed_loop(server.port, texts.heavy(), 8, 2)
        capacity = (await closed_loop(server.port, texts.heavy(), 12, 3)).rate
        before = await settled(server.port)
        backlog = OpenLoop(server.port, texts.heavy(), BACKLOG_S * capacity, 1)
        await backlog.send()
        loops = {
            deadline_ms: OpenLoop(server.port, texts.heavy(deadline_ms), IMPATIENT_RATE, IMPATIENT_S)
            for deadline_ms in DEADLINES_MS
        }
        await asyncio.gather(*(loop.send() for loop in loops.values()))
        for deadline_ms, loop in loops.items():
            impatient[deadline_ms] = await loop.answers()
        patient = await backlog.answers()
        after = await settled(server.port)

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
    wasted = texts_computed(before, after) - sum(
        len(answer.json()["predictions"]) for answer in Answers(everything, 1).of(200)
    )
    late_texts = sum(len(answers.of(504)) for answers in impatient.values())
    report.check(
        f"of the {late_texts} texts that came too late, most were not begun and are not computed",
        f"{wasted} computed",
        0 <= wasted < late_texts / 2,
    )
    wrong = disagreements(everything, before, after)
    report.check("metrics and callers count the same", "; ".join(wrong) or "the same", not wrong)
    report.figures["wasted_texts"] = wasted
    return report
