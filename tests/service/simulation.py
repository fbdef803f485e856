"""Callers, runners and a model of fixed speed around the real batcher, on a clock that jumps to what happens next."""

import functools
import heapq
import itertools
import math
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence

from ladabert_serve.errors import QueueFullError
from ladabert_serve.scheduling.batcher import Batcher
from ladabert_serve.scheduling.fair_queue import BatchLimits
from ladabert_serve.scheduling.ticket import Batch, Preparation, Ticket

TOKENS_PER_S = 3000.0  # that one runner computes, padding included
RUN_S = 0.001  # that each run takes on top
PAUSE_S = 0.02  # of a caller who was refused
BYTES_PER_TOKEN = 5
SimulatedTicket = Ticket[Sequence[int], int, int]


class _Take(threading.Thread):
    """A runner that asks for a batch; it stands still while it prepares, until the clock has moved on."""

    def __init__(self, batcher: Batcher[Sequence[int], int, int]) -> None:
        super().__init__(daemon=True)
        self.batch: Batch[Sequence[int], int, int] | None = None
        self.ended = False
        self.go_on = threading.Semaphore(0)
        self.stands_still = threading.Semaphore(0)
        self._batcher = batcher

    def run(self) -> None:
        """Take what there is."""
        self.batch = self._batcher.take(timeout_s=0)
        self.ended = True
        self.stands_still.release()


class Simulation:
    """A service of `runners` runners; a request is the lengths of its texts in tokens, before truncation.

    Of a text `model_length` tokens are computed; all of it is prepared.
    """

    def __init__(
        self, limits: BatchLimits, runners: int = 2, model_length: int = 256, prepared_bytes_per_s: float = math.inf
    ) -> None:
        self.now = 0.0
        self.refused: list[tuple[float, QueueFullError]] = []  # and when
        self.admitted: list[SimulatedTicket] = []  # in the order in which they came
        self.deepest = 0
        self._events: list[tuple[float, int, Callable[[], object]]] = []  # a heap
        self._sequence = itertools.count()
        self._free_runners = runners
        self.batcher: Batcher[Sequence[int], int, int] = Batcher(
            limits, self._prepare, _deliver, self, clock=lambda: self.now
        )
        self._model_length = model_length
        self._prepared_bytes_per_s = prepared_bytes_per_s
        self._taking: _Take  # the runner that does something now

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

    def come(
        self, requests: Iterator[Sequence[int]], rate: float, seconds: float, flow: str | None = None
    ) -> list[SimulatedTicket]:
        """Let requests come at a fixed rate from now on; return the tickets of those accepted, which are to come."""
        asked: list[SimulatedTicket] = []

        def ask() -> None:
            ticket = self._ask(next(requests), flow=flow)
            if ticket is not None:
                asked.append(ticket)

        for number in range(round(rate * seconds)):
            self.at(self.now + number / rate, ask)
        return asked

    def call(
        self, requests: Iterator[Sequence[int]], callers: int, seconds: float, flow: str | None = None
    ) -> list[SimulatedTicket]:
        """Let so many callers ask, each again as soon as it has its answer; return the tickets, which are to come."""
        end = self.now + seconds
        asked: list[SimulatedTicket] = []

        def ask() -> None:
            if self.now < end:
                ticket = self._ask(next(requests), ask, flow)
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

    def _ask(
        self, lengths: Sequence[int], answered: Callable[[], None] | None = None, flow: str | None = None
    ) -> SimulatedTicket | None:
        def answer() -> None:
            if answered is not None:
                self.at(self.now, answered)

        try:
            tokens = sum(min(length, self._model_length) for length in lengths)
            ticket = self.batcher.admit(lengths, tokens, BYTES_PER_TOKEN * sum(lengths), math.inf, answer, flow)
        except QueueFullError as error:
            self.refused.append((self.now, error))
            return None
        self.admitted.append(ticket)
        return ticket

    def _start_runs(self) -> None:
        busy = True
        while self._free_runners and busy:
            self._free_runners -= 1
            busy = self._let(_Take(self.batcher))

    def _let(self, take: _Take) -> bool:
        """Let a runner go on until it has a batch, stands still or finds nothing; return False in the last case."""
        self._taking = take
        if self._prepared_bytes_per_s == math.inf:  # it never stands still
            take.run()
        elif take.ident is None:
            take.start()
        else:
            take.go_on.release()
        take.stands_still.acquire()
        if not take.ended:
            return True
        batch = take.batch
        if batch is None:
            self._free_runners += 1
            return False

        def end() -> None:
            self._free_runners += 1
            batch.answer(batch.payloads)

        self.at(self.now + RUN_S + batch.padded_tokens / TOKENS_PER_S, end)
        return True

    def _prepare(self, lengths: Sequence[int]) -> Preparation[int]:
        for index, length in enumerate(lengths):
            if index:
                yield BYTES_PER_TOKEN * lengths[index - 1]
            if self._prepared_bytes_per_s < math.inf:
                take = self._taking
                self.at(
                    self.now + BYTES_PER_TOKEN * length / self._prepared_bytes_per_s, functools.partial(self._let, take)
                )
                take.stands_still.release()
                take.go_on.acquire()
        computed = [min(length, self._model_length) for length in lengths]
        return list(zip(computed, computed, strict=True))


def _deliver(tickets: Sequence[SimulatedTicket]) -> None:
    for ticket in tickets:
        ticket.waiter()


def seconds_of(tickets: Iterable[SimulatedTicket]) -> list[float]:
    """The time from admission to answer of each, from the shortest to the longest."""
    return sorted(ticket.settled_at - ticket.admitted_at for ticket in tickets if ticket.settled_at is not None)


def p99(values: Sequence[float]) -> float:
    """The value that 99 of 100 sorted values do not exceed."""
    return values[math.ceil(0.99 * len(values)) - 1]
