"""Runs that raise, return the wrong shape or NaN, or hang: their callers hear of it, the others go on."""

import asyncio
import time

from benchmarks.faults.client import Answer, ask, classify, get
from benchmarks.faults.faulty_server import CAUSE, HANGS, NOT_A_NUMBER, RAISES, SHAPE
from benchmarks.faults.figures import percentile
from benchmarks.faults.load import Answers, closed_loop
from benchmarks.faults.report import Options, Report, milliseconds
from benchmarks.faults.scrape import scrape
from benchmarks.faults.server import ServerProcess, started
from benchmarks.faults.texts import Texts

MODULE = "benchmarks.faults.faulty_server"
RUNNERS = 2
BATCH_SIZE = 8
MAX_RUN_MS = 1000
SLACK_S = 0.5  # until a hung run is noticed and its runner replaced
GRACE_S = 2.0
CALLERS = 8
MARKED = 5
FAILED = (500, 503, 504)
LOGGED = {RAISES: CAUSE, SHAPE: "shape", NOT_A_NUMBER: "finite"}
KINDS = {RAISES: "raises", SHAPE: "wrong shape", NOT_A_NUMBER: "NaN"}


async def measure(options: Options) -> Report:
    """Try every kind of failure under load, then nothing but failures, then runs that hang."""
    report = Report()
    settings = {
        "runners": RUNNERS,
        "max_batch_size": BATCH_SIZE,
        "max_run_ms": MAX_RUN_MS,
        "grace_period_s": GRACE_S,
    }
    async with started(options.models, settings, module=MODULE) as server:
        for word in KINDS:
            await _check_under_load(server, word, report)
        await _check_readiness(server, report)
    async with started(options.models, settings, module=MODULE) as server:
        await _check_hanging(server, report)
    async with started(options.models, settings | {"max_run_ms": 60000}, module=MODULE) as server:
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


async def _check_under_load(server: ServerProcess, word: str, report: Report) -> None:
    """Send a few marked texts among many others."""
    load = asyncio.create_task(closed_loop(server.port, Texts().short(), CALLERS, 3))
    marked: list[Answer] = []
    for _ in range(MARKED):
        await asyncio.sleep(0.4)
        marked.append(await asyncio.wait_for(ask(server.port, _marked(word)), 30))
    others = await load
    statuses = Answers(marked, 1).statuses()
    kind = KINDS[word]
    report.check(f"{kind}: its callers get 500, 503 or 504", f"{statuses}", set(statuses) <= set(FAILED))
    shared = len(others.of(*FAILED))
    report.check(
        f"{kind}: only callers of the same batch share the failure",
        f"{others.statuses()}",
        shared <= MARKED * (BATCH_SIZE - 1) and len(others.of(200, *FAILED)) == len(others.all),
    )
    named = [answer for answer in marked if _is_logged(server.log, answer, LOGGED[word])]
    report.check(
        f"{kind}: the log says the cause beside the id of each answer that failed",
        f"{LOGGED[word]}, {len(named)} of {len(marked)}",
        len(named) == len(marked),
    )
    ready = (await ask(server.port, get("/health/ready"))).status
    report.check(f"{kind}: ready afterwards", f"{ready}", ready == 200)


def _is_logged(log: str, answer: Answer, cause: str) -> bool:
    request = f"request {answer.headers.get('x-request-id')} failed"
    return any(request in line and cause in line for line in log.splitlines())


async def _check_readiness(server: ServerProcess, report: Report) -> None:
    """Send nothing but texts that fail, then nothing at all."""
    for _ in range(2 * RUNNERS + 2):
        await ask(server.port, _marked(RAISES))
    ready = (await ask(server.port, get("/health/ready"))).status
    page = await scrape(server.port)
    gauge, served = page.total("ladabert_model_ready"), page.total("ladabert_model_info")
    report.check(
        "every run fails: readiness 503 and ladabert_model_ready 0",
        f"{ready}, {served - gauge:g} of {served:g} models not ready",
        ready == 503 and served - gauge == 1,
    )
    began = time.perf_counter()
    seconds = await _until(server, get("/health/ready"), 10)
    status = (await ask(server.port, next(Texts().short()))).status
    report.check(
        "when runs work again: ready within 3 s, without anybody sending a text",
        f"{milliseconds(seconds)}, then {status}",
        seconds <= 3 and status == 200,
    )
    report.figures["ready_again_s"] = time.perf_counter() - began


async def _check_hanging(server: ServerProcess, report: Report) -> None:
    """Let one run hang under load, then as many as there are runners."""
    limit_s = MAX_RUN_MS / 1000 + SLACK_S
    texts = Texts()
    load = asyncio.create_task(closed_loop(server.port, texts.short(), CALLERS, 5))
    await asyncio.sleep(1)
    one = await _ask_hanging(server, limit_s)
    others = await load
    report.check(
        f"one run hangs: its caller gets an answer in {milliseconds(limit_s)}", _told(one), _in_time(one, limit_s)
    )
    slow = percentile((answer.seconds for answer in others.of(200)), 1)
    shared = len(others.of(*FAILED))
    report.check(
        "one run hangs: the others go on being answered",
        f"{others.statuses()}, slowest 200 {milliseconds(slow)}",
        shared < BATCH_SIZE and len(others.of(200)) + shared == len(others.all) and slow < MAX_RUN_MS / 1000,
    )
    hangs = await asyncio.gather(*(_ask_hanging(server, limit_s, 0.1 * number) for number in range(RUNNERS)))
    good = all(_in_time(answer, limit_s) for answer in hangs)
    report.check("all runners hang: their callers get an answer in time", "; ".join(map(_told, hangs)), good)
    seconds = await _until(server, next(texts.short()), 5)
    report.check("all runners hang: replaced, so that the next text is answered", milliseconds(seconds), seconds < 2)
    works = seconds < float("inf")
    ready = (await ask(server.port, get("/health/ready"))).status
    page = await scrape(server.port)
    gauge, served = page.total("ladabert_model_ready"), page.total("ladabert_model_info")
    report.check(
        "readiness and ladabert_model_ready say whether texts are answered",
        f"{'answered' if works else 'not answered'}, {ready}, {gauge:g} of {served:g} models ready",
        (ready == 200) == works == (gauge == served),
    )
    report.check("a hung run is logged", "given up", "given up" in server.log)
    report.figures["hung_caller_s"] = max(
        [answer.seconds for answer in hangs if answer is not None], default=float("nan")
    )


async def _ask_hanging(server: ServerProcess, limit_s: float, delay_s: float = 0) -> Answer | None:
    """The answer to a text that hangs; None when there is none long after it was due."""
    await asyncio.sleep(delay_s)
    try:
        return await asyncio.wait_for(ask(server.port, _marked(HANGS)), limit_s + 5)
    except TimeoutError:
        return None


def _told(answer: Answer | None) -> str:
    return "no answer" if answer is None else f"{answer.status} after {milliseconds(answer.seconds)}"


def _in_time(answer: Answer | None, limit_s: float) -> bool:
    return answer is not None and answer.status in FAILED and answer.seconds <= limit_s


async def _until(server: ServerProcess, request: bytes, timeout_s: float) -> float:
    """Seconds until a request is answered 200; infinite when it is not in time."""
    began = time.perf_counter()
    while time.perf_counter() < began + timeout_s:
        try:
            if (await asyncio.wait_for(ask(server.port, request), timeout_s)).status == 200:
                return time.perf_counter() - began
        except TimeoutError:
            break
        await asyncio.sleep(0.05)
    return float("inf")
