"""Callers, runners and a model of fixed speed around the real batcher, on a clock that jumps to what happens next."""

import heapq
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence

from service.batcher import Batcher, Preparation, Ticket
from service.errors import QueueFullError
from service.fair_queue import BatchLimits

TOKENS_PER_S = 3000.0  # that one runner computes, padding included
RUN_S = 0.001  # that each run takes on top
PAUSE_S = 0.02  # of a caller who was refused
SimulatedTicket = Ticket[Sequence[int], int, int]


class Simulation:
    """A service of `runners` runners; a request is the lengths of its texts."""

    def __init__(self, limits: BatchLimits, runners: int = 2) -> None:
        self.now = 0.0
        self.refused: list[tuple[float, QueueFullError]] = []  # and when
        self.admitted: list[SimulatedTicket] = []  # in the order in which they came
        self.deepest = 0
        self._events: list[tuple[float, int, Callable[[], object]]] = []  # a heap
        self._sequence = itertools.count()
        self._free_runners = runners
        self.batcher: Batcher[Sequence[int], int, int] = Batcher(
            limits, _prepare, _deliver, self, clock=lambda: self.now
        )

    def queue_depth_changed(self, depth: int) -> None:
        """Remember the deepest queue."""
        self.deepest = max(self.deepest, depth)

    def batch_taken(self, size: int, tokens: int, padded_tokens: int) -> None:
        """Ignore."""

    def at(self, seconds: float, happens: Callable[[], object]) -> None:
        """Let something happen at a time."""
        heapq.heappush(self._events, (seconds, next(self._sequence), happens))

    def run_until(self, end: float) -> None:
        """Let everything happen that is due by then."""
        while self._events and self._events[0][0] <= end:
            self.now, _, happens = heapq.heappop(self._events)
            happens()
            self._start_runs()
        self.now = end

    def come(self, requests: Iterator[Sequence[int]], rate: float, seconds: float) -> None:
        """Let requests come at a fixed rate from now on, whatever becomes of those before."""
        for number in range(round(rate * seconds)):
            self.at(self.now + number / rate, lambda: self._ask(next(requests)))

    def call(self, requests: Iterator[Sequence[int]], callers: int, seconds: float) -> list[SimulatedTicket]:
        """Let so many callers ask, each again as soon as it has its answer; return the tickets, which are to come."""
        end = self.now + seconds
        asked: list[SimulatedTicket] = []

        def ask() -> None:
            if self.now < end:
                ticket = self._ask(next(requests), ask)
                if ticket is None:
                    self.at(self.now + PAUSE_S, ask)
                else:
                    asked.append(ticket)

        for _ in range(callers):
            self.at(self.now, ask)
        return asked

    def pass_time(self, seconds: float) -> float:
        """Let that time pass; return the requests a second that were answered in it."""
        began = self.now
        self.run_until(began + seconds)
        return sum(ticket.settled_at is not None and ticket.settled_at > began for ticket in self.admitted) / seconds

    def _ask(self, lengths: Sequence[int], answered: Callable[[], None] | None = None) -> SimulatedTicket | None:
        def answer() -> None:
            if answered is not None:
                self.at(self.now, answered)

        try:
            ticket = self.batcher.admit(lengths, sum(lengths), sum(lengths), math.inf, answer)
        except QueueFullError as error:
            self.refused.append((self.now, error))
            return None
        self.admitted.append(ticket)
        return ticket

    def _start_runs(self) -> None:
        while self._free_runners and (batch := self.batcher.take(timeout_s=0)):
            self._free_runners -= 1

            def end(batch: object = batch) -> None:
                self._free_runners += 1
                batch.answer(batch.payloads)  # type: ignore[attr-defined]

            self.at(self.now + RUN_S + batch.padded_tokens / TOKENS_PER_S, end)


def _prepare(lengths: Sequence[int]) -> Preparation[int]:
    yield from lengths[:-1]
    return [(length, length) for length in lengths]


def _deliver(tickets: Sequence[SimulatedTicket]) -> None:
    for ticket in tickets:
        ticket.waiter()


def seconds_of(tickets: Iterable[SimulatedTicket]) -> list[float]:
    """The time from admission to answer of each, from the shortest to the longest."""
    return sorted(ticket.settled_at - ticket.admitted_at for ticket in tickets if ticket.settled_at is not None)


def p99(values: Sequence[float]) -> float:
    """The value that 99 of 100 sorted values do not exceed."""
    return values[math.ceil(0.99 * len(values)) - 1]
