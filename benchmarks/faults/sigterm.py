"""SIGTERM at full load: whatever was sent before the signal is answered, and the exit code is 0 in time."""

import asyncio
import contextlib
import time
from collections import Counter

from benchmarks.faults.client import NO_ANSWER, Answer, Connection
from benchmarks.faults.load import MARGIN_S
from benchmarks.faults.report import Options, Report, milliseconds
from benchmarks.faults.server import started
from benchmarks.faults.texts import Texts

GRACE_S = 10.0
KEPT = 32  # callers who keep their connection
FRESH = 16  # callers who open a connection for each request: some wait to be accepted when the signal comes
ROUNDS = 5
LOAD_S = 1.5


async def measure(options: Options) -> Report:
    """Stop servers of one and of two workers several times, since what goes wrong is a race."""
    report = Report()
    for workers in (1, 2):
        lost: Counter[str] = Counter()
        before: Counter[int] = Counter()
        stops: list[tuple[int, float]] = []
        for number in range(ROUNDS):
            answers, signal_at, stop = await _round(options, workers, number)
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
        report.check(f"{name}: those in flight get 200 or 503", f"{dict(sorted(before.items()))}", not unexpected)
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


async def _round(options: Options, workers: int, seed: int) -> tuple[dict[str, list[Answer]], float, tuple[int, float]]:
    """Load a server, stop it, and return every answer, the time of the signal and how it ended."""
    answers: dict[str, list[Answer]] = {"kept": [], "fresh": []}
    requests = Texts(seed).short()

    async def keep() -> None:
        connection = await Connection.open(server.port)
        with contextlib.closing(connection):
            while connection.is_open:
                answers["kept"].append(await connection.send(next(requests)))

    async def open_anew() -> None:
        while True:
            try:
                connection = await Connection.open(server.port)
            except OSError:
                return
            with contextlib.closing(connection):
                if connection.is_open:
                    answers["fresh"].append(await connection.send(next(requests)))

    async with started(options.models, {"grace_period_s": GRACE_S}, workers) as server:
        callers = [asyncio.create_task(keep()) for _ in range(KEPT)]
        callers += [asyncio.create_task(open_anew()) for _ in range(FRESH)]
        await asyncio.sleep(LOAD_S)
        signal_at = time.perf_counter()
        stop = await server.stop()
        await asyncio.wait_for(asyncio.gather(*callers), MARGIN_S)
    return answers, signal_at, stop
