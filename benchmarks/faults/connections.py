"""Connections that dribble, idle, pipeline or come and go by the thousand: served callers see no difference."""

import asyncio
import contextlib
import itertools
import socket
import time
from collections.abc import AsyncIterator, Callable, Coroutine

from benchmarks.faults.client import Connection, classify, get
from benchmarks.faults.figures import median, percentile
from benchmarks.faults.load import MARGIN_S, Answers, closed_loop
from benchmarks.faults.report import Options, Report, milliseconds
from benchmarks.faults.server import ServerProcess, started
from benchmarks.faults.texts import Texts
from service.settings import Settings

CALLERS = 16
ROUNDS = 4
HEADER_TIMEOUT_S = 4
BODY_TIMEOUT_MS = 4000
SLACK_S = 1.5
KEEP_ALIVE_S = Settings.model_fields["keep_alive_s"].default
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

Disturbance = Callable[[int], contextlib.AbstractAsyncContextManager[None]]


async def measure(options: Options) -> Report:
    """Serve callers with and without each disturbance, taking turns, and see which connections are closed."""
    report = Report()
    seconds = options.duration_s(4, 2)
    settings = {"header_timeout_s": HEADER_TIMEOUT_S, "default_timeout_ms": BODY_TIMEOUT_MS}
    async with started(options.models, settings) as server:
        await closed_loop(server.port, Texts().short(), CALLERS, 2)
        served = asyncio.create_task(_closed_after_an_answer(server.port))  # beside all that follows
        await _compare(server, f"{DRIBBLING} slow headers", _slow_headers, _nothing, seconds, report)
        await _compare(server, f"{DRIBBLING} slow bodies", _slow_bodies, _nothing, seconds, report)
        await _compare(server, f"{IDLE} idle connections", _idle, _nothing, seconds, report)
        await _compare(server, "pipelining", _pipelining, _one_more, seconds, report)
        await _check_order(server, report)
        await _check_closed(server, report)
        closed = await served
    _check_times(
        f"connections that idle after an answer are closed {KEEP_ALIVE_S} s after it",
        closed,
        KEEP_ALIVE_S - EARLY_S,
        KEEP_ALIVE_S + SLACK_S,
        report,
    )
    return report


async def measure_churn(options: Options) -> Report:
    """Serve callers with and without connections that come and go, taking turns; a fault of its own for its length."""
    report = Report()
    async with started(options.models, {}) as server:
        await closed_loop(server.port, Texts().short(), CALLERS, 2)
        seconds = CHURN / CHURN_PER_S / ROUNDS
        await _compare(server, f"{CHURN:,} connections opened and closed", _churn, _nothing, seconds, report)
    return report


async def _compare(
    server: ServerProcess,
    name: str,
    disturbance: Disturbance,
    baseline: Disturbance,
    seconds: float,
    report: Report,
) -> None:
    parts: dict[Disturbance, list[Answers]] = {baseline: [], disturbance: []}
    texts = Texts()
    for _ in range(ROUNDS):
        for around, found in parts.items():
            async with around(server.port):
                found.append(await closed_loop(server.port, texts.short(), CALLERS, seconds))
    rates = [median(answers.rate for answers in found) for found in parts.values()]
    p99s = [median(answers.percentile_s(0.99) for answers in found) for found in parts.values()]
    speed, wait = rates[1] / rates[0], p99s[1] / p99s[0]
    failed = sum(len(answers.all) - len(answers.of(200)) for found in parts.values() for answers in found)
    report.check(
        f"{name}: throughput ≥ {SLOWER:g} ×, p99 ≤ {LATER:g} × that without",
        f"{speed:.2f} × of {rates[0]:.0f}/s, {wait:.2f} × of {milliseconds(p99s[0])}",
        speed >= SLOWER and wait <= LATER and failed == 0,
    )
    report.figures |= {f"{name}: throughput": speed, f"{name}: p99": wait}


@contextlib.asynccontextmanager
async def _nothing(port: int) -> AsyncIterator[None]:  # noqa: ARG001 - as the other disturbances
    yield


@contextlib.asynccontextmanager
async def _slow_headers(port: int) -> AsyncIterator[None]:
    async with _kept_dribbling(port, b"", _HEAD):
        yield


@contextlib.asynccontextmanager
async def _slow_bodies(port: int) -> AsyncIterator[None]:
    async with _kept_dribbling(port, _HEAD, _BODY):
        yield


_HEAD, _, _BODY = classify("a good film").partition(b"\r\n\r\n")
_HEAD += b"\r\n\r\n"


@contextlib.asynccontextmanager
async def _kept_dribbling(port: int, at_once: bytes, slowly: bytes) -> AsyncIterator[None]:
    """Keep so many connections dribbling; one that the server closes is opened anew."""

    async def keep(delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        while True:
            await _dribble(await Connection.open(port), at_once, slowly)

    tasks = [asyncio.create_task(keep(DRIBBLE_S * number / DRIBBLING)) for number in range(DRIBBLING)]
    try:
        await asyncio.sleep(DRIBBLE_S)
        yield
    finally:
        await _end(tasks)


async def _dribble(connection: Connection, at_once: bytes, slowly: bytes) -> float:
    """Send byte after byte until the server closes the connection; return the seconds that it took."""
    began = time.perf_counter()
    try:
        connection.write(at_once)
        for byte in itertools.cycle([slowly[index : index + 1] for index in range(len(slowly) - 1)]):
            if await connection.wait_closed(DRIBBLE_S) or not connection.is_open:
                break
            connection.write(byte)
        return time.perf_counter() - began
    finally:
        connection.close()


@contextlib.asynccontextmanager
async def _idle(port: int) -> AsyncIterator[None]:
    """Keep connections that send nothing, half of them after an answer."""
    connections = [await Connection.open(port) for _ in range(IDLE)]
    for connection in connections[::2]:
        await connection.send(get("/health/live"))
    try:
        await asyncio.sleep(0.5)
        yield
    finally:
        for connection in connections:
            connection.close()


@contextlib.asynccontextmanager
async def _pipelining(port: int) -> AsyncIterator[None]:
    """One caller who sends many requests before it reads an answer."""
    async with _sending(port, PIPELINED):
        yield


@contextlib.asynccontextmanager
async def _one_more(port: int) -> AsyncIterator[None]:
    """One caller more who waits for each answer: what pipelining is measured against."""
    async with _sending(port, 1):
        yield


@contextlib.asynccontextmanager
async def _sending(port: int, at_once: int) -> AsyncIterator[None]:
    connection = await Connection.open(port)
    requests = Texts(1).short()

    async def send() -> None:
        while True:
            await asyncio.gather(*(connection.send(next(requests)) for _ in range(at_once)))

    task = asyncio.create_task(send())
    try:
        yield
    finally:
        await _end([task])
        connection.close()


@contextlib.asynccontextmanager
async def _churn(port: int) -> AsyncIterator[None]:
    """Open and close connections at a fixed rate."""

    async def churn() -> None:
        began = time.perf_counter()
        for number in itertools.count():
            await asyncio.sleep(max(0.0, began + number / CHURN_PER_S - time.perf_counter()))
            # A blocking socket is the cheapest: on the loopback it waits for nobody, and the load is not the point.
            socket.create_connection(("127.0.0.1", port)).close()

    task = asyncio.create_task(churn())
    try:
        yield
    finally:
        await _end([task])


async def _end(tasks: "list[asyncio.Task[None]]") -> None:
    """Cancel tasks that never end by themselves; raises what one of them died of."""
    for task in tasks:
        task.cancel()
    for outcome in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(outcome, Exception):
            raise outcome


async def _check_order(server: ServerProcess, report: Report) -> None:
    """Pipelined requests of different lengths: the answers come in their order."""
    connection = await Connection.open(server.port)
    lengths = [1 + 7 * number % 40 for number in range(PIPELINED)]
    waiting = [connection.send(classify(" ".join(["good"] * length))) for length in lengths]
    answers = await asyncio.wait_for(asyncio.gather(*waiting), MARGIN_S)
    connection.close()
    tokens = [answer.json()["predictions"][0]["tokens"] if answer.status == 200 else 0 for answer in answers]
    right = [length + 2 for length in lengths]
    report.check(
        f"{PIPELINED} pipelined requests are answered in order",
        f"{sum(found == wanted for found, wanted in zip(tokens, right, strict=True))} in their place",
        tokens == right,
    )


async def _check_closed(server: ServerProcess, report: Report) -> None:
    """Those who send no whole request are let go in time."""
    limit_s = HEADER_TIMEOUT_S + SLACK_S
    opened = [await Connection.open(server.port) for _ in range(DRIBBLING)]
    slow = await asyncio.gather(*(_within(_dribble(connection, b"", _HEAD), 2 * limit_s) for connection in opened))
    _check_times(
        f"slow headers are closed after {HEADER_TIMEOUT_S} s", slow, HEADER_TIMEOUT_S - EARLY_S, limit_s, report
    )
    opened = [await Connection.open(server.port) for _ in range(IDLE)]
    began = time.perf_counter()
    closed = await asyncio.gather(*(connection.wait_closed(2 * limit_s) for connection in opened))
    took_s = time.perf_counter() - began
    for connection in opened:
        connection.close()
    idle = [took_s if is_closed else float("inf") for is_closed in closed]
    _check_times(f"idle connections are closed after {HEADER_TIMEOUT_S} s", idle, HEADER_TIMEOUT_S - 1, limit_s, report)
    await _check_slow_bodies(server, report)


async def _closed_after_an_answer(port: int) -> list[float]:
    """Have so many connections served once each; return the seconds after which the server closes each."""

    async def wait() -> float:
        connection = await Connection.open(port)
        try:
            await connection.send(classify("a good film"))
            answer = await connection.send(classify("a dull film"))
            closed = await connection.wait_closed(KEEP_ALIVE_S + 2 * SLACK_S)
            return time.perf_counter() - answer.ended_at if closed and answer.status == 200 else float("inf")
        finally:
            connection.close()

    return await asyncio.gather(*(wait() for _ in range(SERVED)))


async def _check_slow_bodies(server: ServerProcess, report: Report) -> None:
    limit_s = BODY_TIMEOUT_MS / 1000 + SLACK_S
    opened = [await Connection.open(server.port) for _ in range(DRIBBLING)]
    answers = [connection.send(_HEAD) for connection in opened]
    dribbles = [asyncio.create_task(_dribble(connection, b"", _BODY)) for connection in opened]
    done, _ = await asyncio.wait(answers, timeout=2 * limit_s)
    for dribble in dribbles:
        dribble.cancel()
    await asyncio.gather(*dribbles, return_exceptions=True)
    statuses = {answer.result().status for answer in done}
    slowest = percentile((answer.result().seconds for answer in done), 1)
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


async def _within(seconds: Coroutine[None, None, float], timeout_s: float) -> float:
    """What the coroutine returns; infinite when it takes longer."""
    try:
        return await asyncio.wait_for(seconds, timeout_s)
    except TimeoutError:
        return float("inf")
