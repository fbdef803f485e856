"""Load on a server: callers who wait for their answer, and callers who come whatever the server does."""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.faults.client import NO_ANSWER, Answer, Connection, Pool
from benchmarks.faults.figures import percentile

PAUSE_S = 0.02  # of a waiting caller whose request was refused
MARGIN_S = 60.0  # for the last answers; nobody waits for ever


@dataclass(frozen=True, slots=True)
class Answers:
    """What became of the requests of `seconds` of load."""

    all: list[Answer]
    seconds: float

    def of(self, *statuses: int) -> list[Answer]:
        """Those with one of these statuses."""
        return [answer for answer in self.all if answer.status in statuses]

    @property
    def rate(self) -> float:
        """Requests answered 200 a second."""
        return len(self.of(200)) / self.seconds

    def percentile_s(self, share: float, *statuses: int) -> float:
        """Time to an answer with one of these statuses (unset: 200)."""
        return percentile((answer.seconds for answer in self.of(*(statuses or (200,)))), share)

    def statuses(self) -> dict[int, int]:
        """How often each status came."""
        counts: dict[int, int] = {}
        for answer in self.all:
            counts[answer.status] = counts.get(answer.status, 0) + 1
        return dict(sorted(counts.items()))


async def closed_loop(port: int, requests: Iterator[bytes], callers: int, seconds: float) -> Answers:
    """Let each of `callers` send its next request when it has its answer; a refused one pauses."""
    started = time.perf_counter()
    answers: list[Answer] = []

    async def call() -> None:
        connection = await Connection.open(port)
        try:
            while time.perf_counter() < started + seconds:
                if not connection.is_open:
                    connection = await Connection.open(port)
                answer = await asyncio.wait_for(connection.send(next(requests)), MARGIN_S)
                answers.append(answer)
                if answer.status != 200:
                    await asyncio.sleep(PAUSE_S)
        finally:
            connection.close()

    async with asyncio.TaskGroup() as group:
        for _ in range(callers):
            group.create_task(call())
    return Answers([answer for answer in answers if answer.ended_at <= started + seconds], seconds)


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
            delay_s = due - time.perf_counter()
            if delay_s > 0:
                await asyncio.sleep(delay_s)
            self._due.append(due)
            self._tasks.append(asyncio.create_task(self._pool.ask(next(self._requests))))

    async def answers(self) -> Answers:
        """Wait for every answer."""
        answers = await asyncio.wait_for(asyncio.gather(*self._tasks), MARGIN_S)
        await self._pool.close()
        return Answers(answers, self._seconds)

    def lateness_s(self, answers: Answers) -> float:
        """99th percentile of how late the generator was: a large one says that it measured itself."""
        late = (answer.sent_at - due for answer, due in zip(answers.all, self._due, strict=True))
        return percentile(late, 0.99)


def unanswered(answers: list[Answer]) -> int:
    """How many requests ended without an answer."""
    return sum(answer.status == NO_ANSWER for answer in answers)
