"""Admits requests, queues their texts and hands batches of near-equal length to whichever runner is free.

There is no timer: a batch is what waits when a runner becomes free. Knows neither HTTP nor ONNX.
"""

import math
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from service.errors import CallerLeftError, DeadlineExceededError, DrainingError, QueueFullError

Payload = TypeVar("Payload")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """What one batch may hold and what may wait."""

    max_batch_size: int  # texts
    max_batch_tokens: int  # padding included
    max_batch_padding: float  # share of the batch's tokens
    max_queue_requests: int
    max_queue_tokens: int


class BatcherObserver(Protocol):
    """Told of what happens inside; called with the batcher's lock held, so it must not block."""

    def queue_depth_changed(self, depth: int) -> None:
        """`depth` requests have texts that wait."""

    def batch_taken(self, size: int, tokens: int, padded_tokens: int) -> None:
        """A runner took a batch of `size` texts."""


class Ticket(Generic[Payload, Result]):
    """One admitted request: its texts are queued once, and it is settled exactly once.

    Settled means `results` holds one result per text in their order, or `error` says why there is none.
    Times are the batcher's clock, in seconds.
    """

    __slots__ = (
        "_items",
        "_on_settled",
        "_unanswered",
        "_unstarted",
        "_waiting_tokens",
        "deadline",
        "error",
        "queued_at",
        "results",
        "settled",
        "settled_at",
        "started_at",
    )

    def __init__(self, tokens: int, deadline: float, on_settled: Callable[[], None]) -> None:
        self.deadline = deadline
        self.results: list[Result] = []
        self.error: BaseException | None = None
        self.settled = False
        self.queued_at: float | None = None  # its texts were tokenised
        self.started_at: float | None = None  # a runner took the first of them
        self.settled_at: float | None = None
        self._on_settled = on_settled
        self._items: list[_Item[Payload, Result]] = []
        self._waiting_tokens = tokens  # an upper bound until the texts are tokenised
        self._unstarted = 1  # texts that no runner took; until the texts are tokenised, not zero
        self._unanswered = 0


class _Item(Generic[Payload, Result]):
    """One text in the queue."""

    __slots__ = ("index", "length", "payload", "result", "ticket")

    def __init__(self, ticket: Ticket[Payload, Result], index: int, payload: Payload, length: int) -> None:
        self.ticket = ticket
        self.index = index
        self.payload = payload
        self.length = length
        self.result: Result | None = None


class Batch(Generic[Payload, Result]):
    """Texts that run together; answered or failed once, by the runner that took it."""

    __slots__ = ("_batcher", "_items", "answered", "longest", "payloads", "tokens")

    def __init__(self, batcher: "Batcher[Payload, Result]", items: "Sequence[_Item[Payload, Result]]") -> None:
        self._batcher = batcher
        self._items = items
        self.payloads = [item.payload for item in items]
        self.longest = max(item.length for item in items)
        self.tokens = sum(item.length for item in items)
        self.answered = False

    @property
    def padded_tokens(self) -> int:
        """Tokens that the model computes, padding included."""
        return self.longest * len(self._items)

    def answer(self, results: Sequence[Result | Exception]) -> None:
        """Give each text its result, or the error that its caller gets, in the order of `payloads`."""
        if self.answered:
            raise RuntimeError("this batch was answered before")
        if len(results) != len(self._items):
            raise ValueError(f"{len(results)} results for a batch of {len(self._items)}")
        self.answered = True
        self._batcher._answer(self._items, results)

    def fail(self, error: Exception) -> None:
        """Give every text the same error."""
        self.answer([error] * len(self._items))


class Batcher(Generic[Payload, Result]):
    """The queue of one model; every method may be called from any thread."""

    def __init__(
        self, limits: BatchLimits, observer: BatcherObserver, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.clock = clock
        self._limits = limits
        self._observer = observer
        self._changed = threading.Condition()
        self._queue: dict[_Item[Payload, Result], None] = {}  # in order of arrival
        self._by_length: dict[int, dict[_Item[Payload, Result], None]] = {}
        self._live: dict[Ticket[Payload, Result], None] = {}
        self._waiting_requests = 0
        self._waiting_tokens = 0
        self._idle_runners = 0
        self._draining = False
        self._closed = False

    @property
    def live_requests(self) -> int:
        """Requests that were admitted and not yet settled."""
        return len(self._live)

    @property
    def queue_depth(self) -> int:
        """Requests of which at least one text waits for a runner."""
        return self._waiting_requests

    @property
    def queued_tokens(self) -> int:
        """Tokens that wait, by upper bound where they are not tokenised yet."""
        return self._waiting_tokens

    @property
    def closed(self) -> bool:
        """Whether `close` was called: `take` gives nothing any more."""
        return self._closed

    def admit(self, tokens: int, deadline: float, on_settled: Callable[[], None]) -> Ticket[Payload, Result]:
        """Accept a request of at most `tokens` tokens; raises QueueFullError or DrainingError.

        `on_settled` is called once, from the thread that settles the request, and must not block.
        """
        limits = self._limits
        with self._changed:
            if self._draining:
                raise DrainingError
            if self._waiting_requests >= limits.max_queue_requests:
                raise QueueFullError(f"{self._waiting_requests} requests wait already; try again later")
            if self._waiting_requests and self._waiting_tokens + tokens > limits.max_queue_tokens:
                raise QueueFullError(f"{self._waiting_tokens} tokens wait already; try again later")
            ticket: Ticket[Payload, Result] = Ticket(tokens, deadline, on_settled)
            self._live[ticket] = None
            self._waiting_requests += 1
            self._waiting_tokens += tokens
            self._observer.queue_depth_changed(self._waiting_requests)
            return ticket

    def put(self, ticket: Ticket[Payload, Result], payloads: Sequence[Payload], lengths: Sequence[int]) -> None:
        """Queue a request's texts, at least one, with their lengths in tokens; a settled request's are dropped."""
        items = [
            _Item(ticket, index, payload, length)
            for index, (payload, length) in enumerate(zip(payloads, lengths, strict=True))
        ]
        if not items:
            raise ValueError("a request has at least one text")
        with self._changed:
            if ticket.settled:
                return
            if ticket._items:
                raise RuntimeError("this request's texts were queued before")
            ticket.queued_at = self.clock()
            ticket._items = items
            ticket._unstarted = ticket._unanswered = len(items)
            self._waiting_tokens += sum(lengths) - ticket._waiting_tokens
            ticket._waiting_tokens = sum(lengths)
            for item in items:
                self._queue[item] = None
                self._by_length.setdefault(item.length, {})[item] = None
            self._changed.notify(min(len(items), self._idle_runners))

    def fail(self, ticket: Ticket[Payload, Result], error: BaseException) -> None:
        """Settle a request with an error, unless it is settled; its waiting texts are dropped."""
        with self._changed:
            settled = self._settle(ticket, error)
        if settled:
            ticket._on_settled()

    def cancel(self, ticket: Ticket[Payload, Result]) -> None:
        """Drop a request whose caller left."""
        self.fail(ticket, CallerLeftError())

    def expire(self, ticket: Ticket[Payload, Result]) -> None:
        """Drop a request whose deadline has passed."""
        self.fail(ticket, DeadlineExceededError())

    def take(self, timeout_s: float | None = None) -> Batch[Payload, Result] | None:
        """Wait for texts and return a batch; None once closed, or when `timeout_s` passed without any."""
        while True:
            with self._changed:
                self._idle_runners += 1
                try:
                    if not self._closed and not self._queue and not self._changed.wait(timeout_s):
                        return None
                    if self._closed:
                        return None
                    if not self._queue:
                        continue
                    items = self._pick()
                    late = self._settle_late(items)
                    if not late:
                        return self._start(items)
                finally:
                    self._idle_runners -= 1
            for ticket in late:
                ticket._on_settled()

    def drain(self) -> None:
        """Admit nothing from now on; what was admitted is still answered."""
        self._draining = True

    def abort(self) -> None:
        """Settle whatever is not settled with DrainingError."""
        self.drain()
        with self._changed:
            unsettled = [ticket for ticket in list(self._live) if self._settle(ticket, DrainingError())]
        for ticket in unsettled:
            ticket._on_settled()

    def close(self) -> None:
        """Abort, and let every runner that waits in `take` go."""
        self.abort()
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _pick(self) -> "list[_Item[Payload, Result]]":
        """Choose the oldest text and those nearest to it in length, as far as the limits allow."""
        limits = self._limits
        oldest = next(iter(self._queue))
        # Runners that are free at the same moment share what waits, or one would work and the rest look on.
        share = math.ceil(len(self._queue) / max(1, self._idle_runners))
        most = min(limits.max_batch_size, share)
        picked = [oldest]
        tokens = longest = oldest.length
        for length in sorted(self._by_length, key=lambda other: (abs(other - oldest.length), other)):
            for item in self._by_length[length]:
                if len(picked) >= most:
                    return picked
                if item is oldest:
                    continue
                padded = max(longest, length) * (len(picked) + 1)
                padding = padded - tokens - length
                if padded > limits.max_batch_tokens or padding > limits.max_batch_padding * padded:
                    break
                picked.append(item)
                tokens += length
                longest = max(longest, length)
        return picked

    def _settle_late(self, items: "Iterable[_Item[Payload, Result]]") -> list[Ticket[Payload, Result]]:
        """Settle the requests among these texts whose deadline has passed, and return them."""
        now = self.clock()
        late = dict.fromkeys(item.ticket for item in items if item.ticket.deadline <= now)
        return [ticket for ticket in late if self._settle(ticket, DeadlineExceededError())]

    def _start(self, items: "Sequence[_Item[Payload, Result]]") -> Batch[Payload, Result]:
        now = self.clock()
        for item in items:
            ticket = item.ticket
            if ticket.started_at is None:
                ticket.started_at = now
            self._unqueue(item)
            ticket._unstarted -= 1
            ticket._waiting_tokens -= item.length
            self._waiting_tokens -= item.length
            if ticket._unstarted == 0:
                self._waiting_requests -= 1
        batch = Batch(self, items)
        self._observer.queue_depth_changed(self._waiting_requests)
        self._observer.batch_taken(len(items), batch.tokens, batch.padded_tokens)
        if self._queue:
            self._changed.notify()
        return batch

    def _answer(self, items: "Sequence[_Item[Payload, Result]]", results: Sequence[Result | Exception]) -> None:
        settled = []
        with self._changed:
            for item, result in zip(items, results, strict=True):
                ticket = item.ticket
                if ticket.settled:
                    continue
                if isinstance(result, Exception):
                    self._settle(ticket, result)
                    settled.append(ticket)
                    continue
                item.result = result
                ticket._unanswered -= 1
                if ticket._unanswered == 0:
                    self._settle(ticket, None)
                    settled.append(ticket)
        for ticket in settled:
            ticket._on_settled()

    def _settle(self, ticket: Ticket[Payload, Result], error: BaseException | None) -> bool:
        """Settle once and return whether this call did; the caller calls `on_settled` without the lock."""
        if ticket.settled:
            return False
        ticket.settled = True
        ticket.settled_at = self.clock()
        ticket.error = error
        if error is None:
            ticket.results = [item.result for item in ticket._items]  # type: ignore[misc]
        del self._live[ticket]
        if ticket._unstarted:
            for item in ticket._items:
                if item in self._queue:
                    self._unqueue(item)
            self._waiting_requests -= 1
            self._waiting_tokens -= ticket._waiting_tokens
            self._observer.queue_depth_changed(self._waiting_requests)
        ticket._items = []
        return True

    def _unqueue(self, item: "_Item[Payload, Result]") -> None:
        del self._queue[item]
        same_length = self._by_length[item.length]
        del same_length[item]
        if not same_length:
            del self._by_length[item.length]
