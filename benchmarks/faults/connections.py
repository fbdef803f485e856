"""Connections that dribble, idle, pipeline or come and go by the thousand: served callers see no difference."""

import asyncio
import contextlib
import itertools
import math
import socket
import statistics
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager

from benchmarks.faults.report import Options, Report
from benchmarks.harness.client import Connection, classify, get
from benchmarks.harness.load import MARGIN_S, Answers, closed_loop, meanwhile
from benchmarks.harness.servers import our_service
from benchmarks.harness.statistics import milliseconds, percentile, turns
from benchmarks.harness.texts import Texts
from ladabert_serve.settings import Settings

CALLERS = 16
ROUNDS = 4
HEADER_TIMEOUT_S = 4
BODY_TIMEOUT_MS = 4000
SLACK_S = 1.5
KEEP_ALIVE_S: float = Settings.model_fields["keep_alive_s"].default
EARLY_S = 0.1  # a connection is timed from its first byte, the server counts from its opening
DRIBBLE_S = 1.0  # between two bytes
DRIBBLING = 200
IDLE = 1000
SERVED = 20
CHURN = 10_000
CHURN_PER_S = 250
PIPELINED = 50
SLOWER = 0.9  # of the throughput and
LATER = 1.25  # times the p99: what two runs on a shared machine differ by

HEAD, _, BODY = classify("a good film").partition(b"\r\n\r\n")
HEAD += b"\r\n\r\n"
Disturbance = Callable[[int], AbstractAsyncContextManager[None]]


async def connections(options: Options) -> Report:
    """Serve callers with and without each disturbance, taking turns, and see which connections are closed."""
    report = Report()
    seconds = options.duration_s(4, 2)
    settings = {"header_timeout_s": HEADER_TIMEOUT_S, "default_timeout_ms": BODY_TIMEOUT_MS}
    async with our_service(options.models, options.settings(**settings)) as server:
        port = server.port
        await closed_loop(port, Texts().short(), CALLERS, 2)
        served = asyncio.create_task(_closed_after_an_answer(port))  # beside all that follows
        await _compare(port, f"{DRIBBLING} slow headers", _slow_headers, _nothing, seconds, report)
        await _compare(port, f"{DRIBBLING} slow bodies", _slow_bodies, _nothing, seconds, report)
        await _compare(port, f"{IDLE} idle connections", _idle, _nothing, seconds, report)
        await _compare(port, "pipelining", _pipelining, _one_more, seconds, report)
        await _check_order(port, report)
        await _check_closed(port, report)
        await _check_slow_bodies(port, report)
        promise = f"connections that idle after an answer are closed {KEEP_ALIVE_S} s after it"
        _check_times(promise, await served, KEEP_ALIVE_S - EARLY_S, KEEP_ALIVE_S + SLACK_S, report)
    return report


async def churn(options: Options) -> Report:
    """Serve callers with and without connections that come and go, taking turns; a fault of its own for its length."""
    report = Report()
    async with our_service(options.models, options.settings()) as server:
        await closed_loop(server.port, Texts().short(), CALLERS, 2)
        seconds = CHURN / CHURN_PER_S / ROUNDS
        name = f"{CHURN:,} connections opened and closed"
        await _compare(server.port, name, lambda port: meanwhile(_churn(port)), _nothing, seconds, report)
    return report


async def _compare(
    port: int, name: str, disturbance: Disturbance, baseline: Disturbance, seconds: float, report: Report
) -> None:
    parts: dict[Disturbance, list[Answers]] = {baseline: [], disturbance: []}
    texts = Texts()
    for _, around in turns(ROUNDS, list(parts)):
        async with around(port):
            parts[around].append(await closed_loop(port, texts.short(), CALLERS, seconds))
    rates = [statistics.median(answers.rate for answers in found) for found in parts.values()]
    p99s = [statistics.median(answers.percentile_s(99) for answers in found) for found in parts.values()]
    speed, wait = rates[1] / rates[0], p99s[1] / p99s[0]
    failed = sum(answers.failed for found in parts.values() for answers in found)
    report.check(
        f"{name}: throughput ≥ {SLOWER:g} ×, p99 ≤ {LATER:g} × that without",
        f"{speed:.2f} × of {rates[0]:.0f}/s, {wait:.2f} × of {milliseconds(p99s[0])}",
        speed >= SLOWER and wait <= LATER and failed == 0,
    )
    report.figures |= {f"{name}: throughput": speed, f"{name}: p99": wait}


def _nothing(port: int) -> AbstractAsyncContextManager[None]:  # noqa: ARG001 - as the other disturbances
    return contextlib.nullcontext()


def _slow_headers(port: int) -> AbstractAsyncContextManager[None]:
    return _kept_dribbling(port, b"", HEAD)


def _slow_bodies(port: int) -> AbstractAsyncContextManager[None]:
    return _kept_dribbling(port, HEAD, BODY)


@contextlib.asynccontextmanager
async def _kept_dribbling(port: int, at_once: bytes, slowly: bytes) -> AsyncIterator[None]:
    """Keep so many connections dribbling; one that the server closes is opened anew."""

    async def keep(delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        while True:
            await _dribble(await Connection.open(port), at_once, slowly)

    async with meanwhile(*(keep(DRIBBLE_S * number / DRIBBLING) for number in range(DRIBBLING))):
        await asyncio.sleep(DRIBBLE_S)
        yield


async def _dribble(connection: Connection, at_once: bytes, slowly: bytes, timeout_s: float = math.inf) -> float:
    """Send byte after byte until the server closes the connection; return the seconds that it took (infinite: more)."""
    began = time.perf_counter()
    try:
        connection.write(at_once)
        for index in itertools.cycle(range(len(slowly) - 1)):
            if await connection.wait_closed(DRIBBLE_S) or not connection.is_open:
                break
            if time.perf_counter() - began > timeout_s:
                return math.inf
            connection.write(slowly[index : index + 1])
        return time.perf_counter() - began
    finally:
        connection.close()


@contextlib.asynccontextmanager
async def _idle(port: int) -> AsyncIterator[None]:
    """Keep connections that send nothing, half of them after an answer."""
    opened = [await Connection.open(port) for _ in range(IDLE)]
    for connection in opened[::2]:
        await connection.send(get("/health/live"))
    try:
        await asyncio.sleep(0.5)
        yield
    finally:
        for connection in opened:
            connection.close()


def _pipelining(port: int) -> AbstractAsyncContextManager[None]:
    return meanwhile(_send_at_once(port, PIPELINED))


def _one_more(port: int) -> AbstractAsyncContextManager[None]:
    return meanwhile(_send_at_once(port, 1))  # what pipelining is measured against: one caller more who waits


async def _send_at_once(port: int, count: int) -> None:
    """Send so many requests before reading an answer, again and again."""
    requests = Texts(1).short()
    with contextlib.closing(await Connection.open(port)) as connection:
        while True:
            await asyncio.gather(*(connection.send(next(requests)) for _ in range(count)))


async def _churn(port: int) -> None:
    """Open and close connections at a fixed rate."""
    began = time.perf_counter()
    for number in itertools.count():
        await asyncio.sleep(max(0.0, began + number / CHURN_PER_S - time.perf_counter()))
        # A blocking socket is the cheapest: on the loopback it waits for nobody, and the load is not the point.
        socket.create_connection(("127.0.0.1", port)).close()


async def _check_order(port: int, report: Report) -> None:
    """Pipelined requests of different lengths: the answers come in their order."""
    lengths = [1 + 7 * number % 40 for number in range(PIPELINED)]
    with contextlib.closing(await Connection.open(port)) as connection:
        waiting = [connection.send(classify(" ".join(["good"] * length))) for length in lengths]
        answers = await asyncio.wait_for(asyncio.gather(*waiting), MARGIN_S)
    tokens = [answer.json()["predictions"][0]["tokens"] if answer.status == 200 else 0 for answer in answers]
    right = [length + 2 for length in lengths]
    report.check(
        f"{PIPELINED} pipelined requests are answered in order",
        f"{sum(found == wanted for found, wanted in zip(tokens, right, strict=True))} in their place",
        tokens == right,
    )


async def _check_closed(port: int, report: Report) -> None:
    """Those who send no whole request are let go in time."""
    limit_s = HEADER_TIMEOUT_S + SLACK_S
    opened = [await Connection.open(port) for _ in range(DRIBBLING)]
    slow = await asyncio.gather(*(_dribble(connection, b"", HEAD, 2 * limit_s) for connection in opened))
    promise = f"slow headers are closed after {HEADER_TIMEOUT_S} s"
    _check_times(promise, slow, HEADER_TIMEOUT_S - EARLY_S, limit_s, report)
    opened = [await Connection.open(port) for _ in range(IDLE)]
    began = time.perf_counter()
    closed = await asyncio.gather(*(connection.wait_closed(2 * limit_s) for connection in opened))
    took_s = time.perf_counter() - began
    for connection in opened:
        connection.close()
    idle = [took_s if is_closed else math.inf for is_closed in closed]
    _check_times(f"idle connections are closed after {HEADER_TIMEOUT_S} s", idle, HEADER_TIMEOUT_S - 1, limit_s, report)


async def _closed_after_an_answer(port: int) -> list[float]:
    """Have so many connections served twice each; return the seconds after which the server closes each."""

    async def wait() -> float:
        with contextlib.closing(await Connection.open(port)) as connection:
            await connection.send(classify("a good film"))
            answer = await connection.send(classify("a dull film"))
            closed = await connection.wait_closed(KEEP_ALIVE_S + 2 * SLACK_S)
            return time.perf_counter() - answer.ended_at if closed and answer.status == 200 else math.inf

    return await asyncio.gather(*(wait() for _ in range(SERVED)))


async def _check_slow_bodies(port: int, report: Report) -> None:
    limit_s = BODY_TIMEOUT_MS / 1000 + SLACK_S
    opened = [await Connection.open(port) for _ in range(DRIBBLING)]
    answers = [connection.send(HEAD) for connection in opened]
    dribbles = [asyncio.create_task(_dribble(connection, b"", BODY)) for connection in opened]
    done, _ = await asyncio.wait(answers, timeout=2 * limit_s)
    for dribble in dribbles:
        dribble.cancel()
    await asyncio.gather(*dribbles, return_exceptions=True)
    statuses = {answer.result().status for answer in done}
    slowest = percentile((answer.result().seconds for answer in done), 100)
    report.check(
        f"slow bodies get 504 after {BODY_TIMEOUT_MS} ms",
        f"{len(done)} of {DRIBBLING} with {statuses or 'nothing'}, slowest {milliseconds(slowest)}",
        statuses == {504} and len(done) == DRIBBLING and slowest <= limit_s,
    )


def _check_times(promise: str, seconds: list[float], fewest_s: float, most_s: float, report: Report) -> None:
    in_time = sum(fewest_s <= taken <= most_s for taken in seconds)
    report.check(
        promise,
        f"{in_time} of {len(seconds)} in time, {milliseconds(min(seconds))} to {milliseconds(max(seconds))}",
        in_time == len(seconds),
    )
