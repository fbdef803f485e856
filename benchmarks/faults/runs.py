"""Runs of the graph that raise, return the wrong shape or NaN, or hang."""

import asyncio
import contextlib
import functools
import time

from benchmarks.faults.report import Options, Report
from benchmarks.harness.altered_service import CAUSE, HANGS, NOT_A_NUMBER, RAISES, SHAPE
from benchmarks.harness.client import Answer, ask, classify
from benchmarks.harness.load import Answers, closed_loop
from benchmarks.harness.metrics import scrape
from benchmarks.harness.servers import READY, Server, our_service
from benchmarks.harness.statistics import milliseconds, percentile
from benchmarks.harness.texts import Texts

RUNNERS = 2
BATCH_SIZE = 8
MAX_RUN_MS = 1000
SLACK_S = 0.5  # until a hung run is noticed and its runner replaced
GRACE_S = 2.0
CALLERS = 8
MARKED = 5
FAILED = (500, 503, 504)
KINDS = {
    RAISES: ("raises", CAUSE),
    SHAPE: ("wrong shape", "shape"),
    NOT_A_NUMBER: ("NaN", "finite"),
}  # and what is logged
SETTINGS = {"runners": RUNNERS, "max_batch_size": BATCH_SIZE, "max_run_ms": MAX_RUN_MS, "grace_period_s": GRACE_S}


async def failing_runs(options: Options) -> Report:
    """Runs that raise, return the wrong shape or NaN, or hang: their callers hear of it, the others go on.

    Every kind of failure is tried under load, then nothing but failures, then runs that hang.
    """
    report = Report()
    faulty = functools.partial(our_service, options.models, module="benchmarks.harness.altered_service faulty")
    async with faulty(options.settings(**SETTINGS)) as server:
        for word in KINDS:
            await _check_under_load(server, word, report)
        await _check_readiness(server, report, failing=1 if options.model is None else 2)  # a stage, and its cascade
    async with faulty(options.settings(**SETTINGS)) as server:
        await _check_hanging(server, report)
    async with faulty(options.settings(**SETTINGS | {"max_run_ms": 60000})) as server:
        hanging = asyncio.create_task(ask(server.port, _marked(HANGS)))
        await asyncio.sleep(0.3)
        try:
            code, seconds = await server.stop()
        except TimeoutError:
            report.check("SIGTERM while a run hangs: exit 0 in the grace period", "did not end", False)
            hanging.cancel()
        else:
            status = (await hanging).status
            report.check(
                f"SIGTERM while a run hangs: its caller gets 503 and exit 0 in the grace period of {GRACE_S:g} s",
                f"status {status}, exit {code} after {milliseconds(seconds)}",
                status == 503 and code == 0 and seconds <= GRACE_S,
            )
    return report


def _marked(word: str) -> bytes:
    return classify(f"the film {word} was good")


async def _check_under_load(server: Server, word: str, report: Report) -> None:
    """Send a few marked texts among many others."""
    load = asyncio.create_task(closed_loop(server.port, Texts().short(), CALLERS, 3))
    marked: list[Answer] = []
    for _ in range(MARKED):
        await asyncio.sleep(0.4)
        marked.append(await asyncio.wait_for(ask(server.port, _marked(word)), 30))
    others = await load
    statuses = Answers(marked, 1).statuses()
    kind, cause = KINDS[word]
    report.check(f"{kind}: its callers get 500, 503 or 504", statuses, set(statuses) <= set(FAILED))
    shared = len(others.of(*FAILED))
    report.check(
        f"{kind}: only callers of the same batch share the failure",
        others.statuses(),
        shared <= MARKED * (BATCH_SIZE - 1) and others.failed == shared,
    )
    lines = [line for line in server.log.splitlines() if cause in line]
    ids = [f"request {answer.headers.get('x-request-id')} failed" for answer in marked]
    named = sum(any(request in line for line in lines) for request in ids)
    report.check(
        f"{kind}: the log says the cause beside the id of each answer that failed",
        f"{cause}, {named} of {len(marked)}",
        named == len(marked),
    )
    ready = (await ask(server.port, READY)).status
    report.check(f"{kind}: ready afterwards", ready, ready == 200)


async def _check_readiness(server: Server, report: Report, failing: int) -> None:
    """Send nothing but texts that fail, then nothing at all."""
    for _ in range(2 * RUNNERS + 2):
        await ask(server.port, _marked(RAISES))
    ready = (await ask(server.port, READY)).status
    gauge, served = await _models_ready(server)
    report.check(
        "every run fails: readiness 503 and ladabert_model_ready 0",
        f"{ready}, {served - gauge:g} of {served:g} models not ready",
        ready == 503 and served - gauge == failing,
    )
    seconds = await _until(server, READY, 10)
    status = (await ask(server.port, next(Texts().short()))).status
    report.check(
        "when runs work again: ready within 3 s, without anybody sending a text",
        f"{milliseconds(seconds)}, then {status}",
        seconds <= 3 and status == 200,
    )
    report.figures["ready_again_s"] = seconds


async def _check_hanging(server: Server, report: Report) -> None:
    """Let one run hang under load, then as many as there are runners."""
    limit_s = MAX_RUN_MS / 1000 + SLACK_S
    texts = Texts()
    load = asyncio.create_task(closed_loop(server.port, texts.short(), CALLERS, 5))
    await asyncio.sleep(1)
    one = await _ask_hanging(server, limit_s)
    others = await load
    promise = f"one run hangs: its caller gets an answer in {milliseconds(limit_s)}"
    report.check(promise, _described(one), _in_time(one, limit_s))
    slow = percentile((answer.seconds for answer in others.of(200)), 100)
    shared = len(others.of(*FAILED))
    report.check(
        "one run hangs: the others go on being answered",
        f"{others.statuses()}, slowest 200 {milliseconds(slow)}",
        shared < BATCH_SIZE and others.failed == shared and slow < MAX_RUN_MS / 1000,
    )
    hangs = await asyncio.gather(*(_ask_hanging(server, limit_s, 0.1 * number) for number in range(RUNNERS)))
    good = all(_in_time(answer, limit_s) for answer in hangs)
    report.check("all runners hang: their callers get an answer in time", "; ".join(map(_described, hangs)), good)
    seconds = await _until(server, next(texts.short()), 5)
    report.check("all runners hang: replaced, so that the next text is answered", milliseconds(seconds), seconds < 2)
    works = seconds < float("inf")
    ready = (await ask(server.port, READY)).status
    gauge, served = await _models_ready(server)
    report.check(
        "readiness and ladabert_model_ready say whether texts are answered",
        f"{'answered' if works else 'not answered'}, {ready}, {gauge:g} of {served:g} models ready",
        (ready == 200) == works == (gauge == served),
    )
    report.check("a hung run is logged", "hangs", "hangs" in server.log)
    report.figures["hung_caller_s"] = percentile((answer.seconds for answer in hangs if answer is not None), 100)


async def _models_ready(server: Server) -> tuple[float, float]:
    """Return how many models are ready, and how many are served."""
    page = await scrape(server.port)
    return page.total("ladabert_model_ready"), page.total("ladabert_model_info")


async def _ask_hanging(server: Server, limit_s: float, delay_s: float = 0) -> Answer | None:
    """Return the answer to a text that hangs; None when there is none long after it was due."""
    await asyncio.sleep(delay_s)
    with contextlib.suppress(TimeoutError):
        return await asyncio.wait_for(ask(server.port, _marked(HANGS)), limit_s + 5)
    return None


def _described(answer: Answer | None) -> str:
    return "no answer" if answer is None else f"{answer.status} after {milliseconds(answer.seconds)}"


def _in_time(answer: Answer | None, limit_s: float) -> bool:
    return answer is not None and answer.status in FAILED and answer.seconds <= limit_s


async def _until(server: Server, request: bytes, timeout_s: float) -> float:
    """Return the seconds until a request is answered 200; infinite when it is not in time."""
    began = time.perf_counter()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            while (await ask(server.port, request)).status != 200:
                await asyncio.sleep(0.05)
            return time.perf_counter() - began
    return float("inf")
