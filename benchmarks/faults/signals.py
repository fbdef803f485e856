"""SIGTERM at full load, and SIGKILL of one worker of two."""

import asyncio
import contextlib
import itertools
import signal
import time
from collections import Counter
from dataclasses import dataclass

from benchmarks.faults.report import Options, Report
from benchmarks.harness.client import NO_ANSWER, Answer, Connection
from benchmarks.harness.load import MARGIN_S
from benchmarks.harness.metrics import falls, scrape, settled
from benchmarks.harness.servers import our_service
from benchmarks.harness.statistics import milliseconds
from benchmarks.harness.texts import Texts

GRACE_S = 10.0
KEPT = 32  # callers who keep their connection
FRESH = 16  # callers who open a connection for each request: some wait to be accepted when the signal comes
ROUNDS = 5
TERM_LOAD_S = 1.5

CALLERS = 32
BACK_S = 5.0
SILENCE_S = 1.0  # the longest time in which nobody gets an answer
KILL_LOAD_S = 2.0


async def sigterm(options: Options) -> Report:
    """SIGTERM at full load: whatever was sent before the signal is answered, and the exit code is 0 in time.

    Servers of one and of two workers are stopped several times, since what goes wrong is a race.
    """
    report = Report()
    for workers in (1, 2):
        lost: Counter[str] = Counter()
        before: Counter[int] = Counter()
        stops: list[tuple[int, float]] = []
        for number in range(ROUNDS):
            answers, signal_at, stop = await _stopped_under_load(options, workers, number)
            stops.append(stop)
            for kind, found in answers.items():
                sent_before = [answer for answer in found if answer.sent_at < signal_at]
                before.update(answer.status for answer in sent_before if answer.ended_at >= signal_at)
                lost[kind] += sum(answer.status == NO_ANSWER for answer in sent_before)
        name = f"{workers} worker{'s' if workers > 1 else ''}"
        in_flight = before.total()
        for kind, where in (("kept", "a kept connection"), ("fresh", "a connection of its own")):
            report.check(
                f"{name}: no request sent before the signal on {where} is lost",
                f"{lost[kind]} lost in {ROUNDS} stops, {in_flight} in flight",
                lost[kind] == 0 and in_flight > 0,
            )
        unexpected = set(before) - {200, 429, 503, NO_ANSWER}
        report.check(f"{name}: those in flight get 200 or 503", dict(sorted(before.items())), not unexpected)
        slowest = max(seconds for _, seconds in stops)
        codes = [code for code, _ in stops]
        report.check(
            f"{name}: exit 0 within the grace period of {GRACE_S:g} s",
            f"{codes}, slowest {milliseconds(slowest)}",
            set(codes) == {0} and slowest <= GRACE_S,
        )
        report.figures |= {
            f"in_flight_{workers}": in_flight,
            f"lost_kept_{workers}": lost["kept"],
            f"lost_fresh_{workers}": lost["fresh"],
            f"stop_{workers}_s": slowest,
        }
    return report


async def _stopped_under_load(
    options: Options, workers: int, seed: int
) -> tuple[dict[str, list[Answer]], float, tuple[int, float]]:
    """Load a server, stop it, and return every answer, the time of the signal and how it ended."""
    answers: dict[str, list[Answer]] = {"kept": [], "fresh": []}
    requests = Texts(seed).short()

    async def keep() -> None:
        with contextlib.closing(await Connection.open(server.port)) as connection:
            while connection.is_open:
                answers["kept"].append(await connection.send(next(requests)))

    async def open_anew() -> None:
        with contextlib.suppress(OSError):
            while True:
                with contextlib.closing(await Connection.open(server.port)) as connection:
                    if connection.is_open:
                        answers["fresh"].append(await connection.send(next(requests)))

    async with our_service(options.models, options.settings(grace_period_s=GRACE_S), workers) as server:
        callers = [asyncio.create_task(keep()) for _ in range(KEPT)]
        callers += [asyncio.create_task(open_anew()) for _ in range(FRESH)]
        await asyncio.sleep(TERM_LOAD_S)
        signal_at = time.perf_counter()
        stop = await server.stop()
        await asyncio.wait_for(asyncio.gather(*callers), MARGIN_S)
    return answers, signal_at, stop


@dataclass(frozen=True, slots=True)
class PortAnswer:
    """One request's answer, and the port from which it was sent."""

    port: int
    answer: Answer


async def sigkill(options: Options) -> Report:
    """SIGKILL of one worker of two at load: only its requests fail, and two workers are back soon."""
    report, requests, over = Report(), Texts().short(), asyncio.Event()
    answered: list[PortAnswer] = []
    refused: list[float] = []

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
                    answered.append(PortAnswer(connection.port, await connection.send(next(requests))))

    async with our_service(options.models, options.settings(), workers=2) as server:
        before = await settled(server.port)
        callers = [asyncio.create_task(call()) for _ in range(CALLERS)]
        await asyncio.sleep(KILL_LOAD_S)
        victim, other = server.workers
        held = server.callers_of(victim)
        killed_at = time.perf_counter()
        victim.send_signal(signal.SIGKILL)
        pages = [before]
        back = asyncio.create_task(server.wait_for_workers(2))
        while not back.done() and time.perf_counter() < killed_at + 4 * BACK_S:
            with contextlib.suppress(ValueError):  # the worker died that was asked
                pages.append(await scrape(server.port))
            await asyncio.wait([back], timeout=0.1)
        back_s = time.perf_counter() - killed_at if back.done() else float("inf")
        back.cancel()
        alive = server.workers
        await asyncio.sleep(KILL_LOAD_S)
        over.set()
        await asyncio.wait_for(asyncio.gather(*callers), MARGIN_S)
        after = await settled(server.port)
        code, _ = await server.stop()

    failed = [one for one in answered if one.answer.status == NO_ANSWER]
    others = [one for one in failed if one.port not in held]
    report.check(
        "only requests that the killed worker held fail",
        f"{len(failed)} of {CALLERS} in flight failed, {len(others)} of them held by nobody or the other",
        not others and not refused and bool(held),
    )
    wrong = {one.answer.status for one in answered} - {200, NO_ANSWER}
    report.check("everybody else gets 200", f"other statuses: {sorted(wrong) or 'none'}", not wrong)
    times = sorted(one.answer.ended_at for one in answered if one.answer.status == 200)
    silence = max(later - earlier for earlier, later in itertools.pairwise(times))
    report.check(f"never silent for {SILENCE_S:g} s", milliseconds(silence), silence < SILENCE_S)
    report.check(
        f"two workers answer again within {BACK_S:g} s",
        milliseconds(back_s),
        back_s <= BACK_S and victim not in alive and other in alive,
    )
    grown = after.grown(before, "ladabert_requests_total")
    report.check(
        "metrics: every answer is counted, and no more than what was sent",
        f"{grown:g} counted, {len(times)} answered, {len(answered)} sent",
        len(times) <= grown <= len(answered),
    )
    left = after.total("ladabert_requests_in_progress"), after.total("ladabert_queue_depth")
    report.check("metrics: nothing is in progress or queued afterwards", f"{left[0]:g}, {left[1]:g}", left == (0, 0))
    fallen = falls([*pages, after])
    report.check("metrics: no counter falls and no series goes", "; ".join(fallen[:3]) or "none", not fallen)
    report.check("SIGTERM afterwards: exit 0", code, code == 0)
    report.figures = {
        "failed": len(failed),
        "failed_sent_after_kill": sum(one.answer.sent_at > killed_at for one in failed),
        "refused": len(refused),
        "back_s": back_s,
        "silence_s": silence,
    }
    return report
