"""Load on a server: callers who wait for their answer, and callers who come whatever the server does.

`wrk` and `hey` cannot tell kinds of requests apart within one load or send a refused request again, and Debian's `wrk`
adds the requests that an open loop would have sent ("coordinated omission") to its percentiles.
"""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.harness.client import NO_ANSWER, Answer, Connection, Pool
from benchmarks.harness.statistics import percentile

PAUSE_S = 0.02  # of a waiting caller whose request was not answered 200
MARGIN_S = 60.0  # for the last answers; nobody waits for ever


@dataclass(frozen=True, slots=True)
class Answers:
    """What became of the requests of `seconds` of load."""

    all: list[Answer]
    seconds: float
    refused: int = 0  # times that a caller was told to come again later, and did
    spent: tuple[float, ...] = ()  # by how much what a probe counts grew meanwhile

    def of(self, *statuses: int) -> list[Answer]:
        """Return those with one of these statuses."""
        return [answer for answer in self.all if answer.status in statuses]

    @property
    def failed(self) -> int:
        """How many were not answered 200."""
        return len(self.all) - len(self.of(200))

    @property
    def unanswered(self) -> int:
        """How many ended without an answer."""
        return len(self.of(NO_ANSWER))

    @property
    def rate(self) -> float:
        """Requests answered 200 a second."""
        return len(self.of(200)) / self.seconds

    def percentile_s(self, percent: float, status: int = 200) -> float:
        """Return a percentile of the seconds to an answer with this status."""
        return percentile((answer.seconds for answer in self.of(status)), percent)

    def statuses(self) -> dict[int, int]:
        """Return how often each status came."""
        return dict(sorted(Counter(answer.status for answer in self.all).items()))


async def closed_loop(
    port: int,
    requests: Iterator[bytes],
    callers: int,
    seconds: float,
    *,
    warm_up_s: float = 0.0,
    least_answers: int = 0,
    come_again: bool = False,
    probe: Callable[[], tuple[float, ...]] = tuple,
) -> Answers:
    """Let each of `callers` send its next request when it has its answer, until the time or the requests are over.

    What is answered after the warm-up counts. A slow server gets up to three times `seconds`, until there are
    `least_answers`. With `come_again`, a 429 with Retry-After is no answer: the caller sends the same request after
    that time, and its latency goes on, so that a server that refuses does not look faster than one that makes all wait.
    """
    found: list[Answer] = []
    refusals: list[float] = []
    enough, over = asyncio.Event(), False

    async def call() -> None:
        connection = await Connection.open(port)
        try:
            while not over and (request := next(requests, None)) is not None:
                if not connection.is_open:
                    connection = await Connection.open(port)
                answer = await connection.send(request)
                first = answer.sent_at
                while come_again and not over and answer.status == 429 and "retry-after" in answer.headers:
                    refusals.append(answer.ended_at)
                    await asyncio.sleep(int(answer.headers["retry-after"]))
                    answer = replace(await connection.send(request), sent_at=first)
                found.append(answer)
                if least_answers and len(found) >= least_answers:
                    enough.set()
                if answer.status != 200:
                    await asyncio.sleep(PAUSE_S)
        finally:
            connection.close()

    async with asyncio.timeout(warm_up_s + 3 * seconds + MARGIN_S), asyncio.TaskGroup() as group:
        tasks = [group.create_task(call()) for _ in range(callers)]
        await asyncio.wait(tasks, timeout=warm_up_s)
        if warm_up_s:
            found.clear()
            refusals.clear()
        began, before = time.perf_counter(), probe()
        await asyncio.wait(tasks, timeout=seconds)
        if least_answers and not enough.is_set():
            await asyncio.wait([*tasks, asyncio.create_task(enough.wait())], timeout=2 * seconds)
        over = True
        ended, spent = time.perf_counter(), tuple(b - a for a, b in zip(before, probe(), strict=True))
    counted = [answer for answer in found if answer.ended_at <= ended]
    return Answers(counted, ended - began, sum(at <= ended for at in refusals), spent)


class OpenLoop:
    """Requests at a fixed rate, each on a free connection, whether the last ones were answered or not."""

    def __init__(self, port: int, requests: Iterator[bytes], rate: float, seconds: float) -> None:
        self._pool = Pool(port)
        self._requests = requests
        self._rate = rate
        self._seconds = seconds
        self._tasks: list[asyncio.Task[Answer]] = []
        self._due: list[float] = []

    async def send(self, connections: int = 0) -> None:
        """Send all of them, over `connections` opened ahead and more when these are busy."""
        await self._pool.open(connections)
        started = time.perf_counter()
        for number in range(round(self._rate * self._seconds)):
            due = started + number / self._rate
            if (delay_s := due - time.perf_counter()) > 0:
                await asyncio.sleep(delay_s)
            self._due.append(due)
            self._tasks.append(asyncio.create_task(self._pool.ask(next(self._requests))))

    async def answers(self) -> Answers:
        """Wait for every answer."""
        answers = await asyncio.wait_for(asyncio.gather(*self._tasks), MARGIN_S)
        await self._pool.close()
        return Answers(answers, self._seconds)

    def lateness_s(self, answers: Answers) -> float:
        """Return the 99th percentile of how late the generator was: a large one says that it measured itself."""
        return percentile((answer.sent_at - due for answer, due in zip(answers.all, self._due, strict=True)), 99)


@contextlib.asynccontextmanager
async def meanwhile(*endless: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run coroutines that never end by themselves until the context is left; raises what one of them died of."""
    tasks = [asyncio.create_task(coroutine) for coroutine in endless]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome
