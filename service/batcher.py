"""Admits requests, shares the runners fairly among them and hands out batches of near-equal length.

There is no timer: a batch is what waits when a runner becomes free. Knows neither HTTP nor ONNX. Whose turn it is:
`fair_queue.py`.
"""

import itertools
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, Protocol, TypeVar

from service.errors import CallerLeftError, DeadlineExceededError, DrainingError, QueueFullError
from service.fair_queue import BatchLimits, FairQueue, QueuedText
from service.wakeup import LastInFirstOut

Request = TypeVar("Request")
Payload = TypeVar("Payload")
Result = TypeVar("Result")

TEXTS_AT_A_TIME = 16  # of a long list that are worked on before what else waits gets its turn
DECAY = 0.95  # a batch's weight in the measured speed, relative to the batch after it


class BatcherObserver(Protocol):
    """Told of what happens inside; called with the batcher's lock held, so it must not block."""

    def queue_depth_changed(self, depth: int) -> None:
        """`depth` requests have texts that wait."""

    def batch_taken(self, size: int, tokens: int, padded_tokens: int) -> None:
        """A runner took a batch of `size` texts."""


class Ticket(Generic[Request, Payload, Result]):
    """One admitted request, settled exactly once.

    Settled means `results` holds one result per text in their order, or `error` says why there is none.
    `payloads` are its prepared texts. Times are the batcher's clock, in seconds; `waiter` is the caller's own.
    """

    error: BaseException | None = None
    settled = False
    queued_at = math.nan  # its texts were prepared
    started_at = math.nan  # a runner took the first of them
    settled_at = math.nan
    _preparing: Iterator[tuple[Payload, int]] | None = None
    _texts: "Texts[Request, Payload, Result]" = ()  # in the order in which they go
    _waiting_tokens = 0  # an estimate until the texts are prepared
    _contended = 0  # of these, what others have to wait for
    _unstarted = 1  # texts that no runner took; until the texts are prepared, not zero
    _unanswered = 0

    def __init__(self, request: Request, deadline: float, waiter: Any, now: float, virtual_start: float) -> None:
        self.request = request
        self.deadline = deadline
        self.waiter = waiter
        self.admitted_at = now
        self._virtual_start = virtual_start
        self.payloads: Sequence[Payload] = ()
        self.results: list[Result] = []
        self._prepared: list[tuple[Payload, int]] = []

    def steps(self) -> list[tuple[str, float, float]]:
        """Return name, begin and end of each step that was gone through: tokenize, queue, inference."""
        times = (self.admitted_at, self.queued_at, self.started_at, self.settled_at if self.error is None else math.nan)
        return [
            (name, begin, end)
            for name, begin, end in zip(("tokenize", "queue", "inference"), times, times[1:], strict=False)
            if not math.isnan(end)
        ]


Texts = Sequence[QueuedText[Ticket[Request, Payload, Result]]]


class Batch(Generic[Request, Payload, Result]):
    """Texts that run together; answered or failed once, by the runner that took it."""

    __slots__ = ("_batcher", "_texts", "answered", "is_long", "longest", "payloads", "started_at", "tokens")

    def __init__(
        self,
        batcher: "Batcher[Request, Payload, Result]",
        texts: "Texts[Request, Payload, Result]",
        started_at: float,
    ) -> None:
        self._batcher = batcher
        self._texts = texts
        self.started_at = started_at
        self.payloads = [text.owner.payloads[text.index] for text in texts]
        lengths = [text.length for text in texts]
        self.longest = max(lengths)
        self.tokens = sum(lengths)
        self.is_long = texts[0].is_long
        self.answered = False

    @property
    def padded_tokens(self) -> int:
        """Tokens that the model computes, padding included."""
        return self.longest * len(self._texts)

    def answer(self, results: Sequence[Result | Exception]) -> None:
        """Give each text its result, or the error that its caller gets, in the order of `payloads`."""
        if len(results) != len(self._texts):
            raise ValueError(f"{len(results)} results for a batch of {len(self._texts)}")
        self._answer(results, worked=True)

    def fail(self, error: Exception) -> None:
        """Give every text the same error."""
        self._answer([error] * len(self._texts), worked=False)

    def _answer(self, results: Sequence[Result | Exception], worked: bool) -> None:
        if self.answered:
            raise RuntimeError("this batch was answered before")
        self.answered = True
        self._batcher._answer(self, results, worked)


class Batcher(Generic[Request, Payload, Result]):
    """The queue of one model; every method may be called from any thread.

    `prepare` yields a request's texts with their lengths in tokens, or raises what its caller gets; it runs in
    the thread that calls `take`. `deliver` is told the tickets that were settled, without the lock; it is
    called from any thread and must not block.
    """

    def __init__(
        self,
        limits: BatchLimits,
        prepare: Callable[[Request], Iterator[tuple[Payload, int]]],
        deliver: Callable[[Sequence[Ticket[Request, Payload, Result]]], None],
        observer: BatcherObserver,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.clock = clock
        self._limits = limits
        self._prepare = prepare
        self._deliver = deliver
        self._observer = observer
        self._lock = threading.Lock()
        self._changed = LastInFirstOut(self._lock)
        self._live: dict[Ticket[Request, Payload, Result], None] = {}
        self._arrived: OrderedDict[Ticket[Request, Payload, Result], None] = OrderedDict()  # to be prepared
        self._unfinished: OrderedDict[Ticket[Request, Payload, Result], None] = OrderedDict()  # prepared in part
        self._queue: FairQueue[Ticket[Request, Payload, Result]] = FairQueue(limits)
        self._waiting_requests = 0
        self._waiting_tokens = 0
        self._contended = 0
        self._tokens_per_estimate = 1.0
        self._measured_tokens = 0.0
        self._measured_s = 0.0
        self._free_runners = 0
        self._running = 0  # batches
        self._running_tokens = 0
        self._running_long = 0  # batches of long requests' texts
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
        """Tokens that wait, estimated where they are not prepared yet."""
        return self._waiting_tokens

    @property
    def free_runners(self) -> int:
        """Threads in `take`: each waits, or prepares what arrived."""
        return self._free_runners

    @property
    def closed(self) -> bool:
        """Whether `close` was called: `take` gives nothing any more."""
        return self._closed

    @property
    def expected_wait_s(self) -> float:
        """Seconds that a text which came now would wait, as fast as the last batches went; 0 before the first."""
        if not self._measured_tokens:
            return 0.0
        runners = max(1, self._free_runners + self._running)
        return (self._contended + self._running_tokens) * self._measured_s / self._measured_tokens / runners

    def admit(
        self, request: Request, tokens: int, deadline: float, waiter: Any = None
    ) -> Ticket[Request, Payload, Result]:
        """Accept a request of at most `tokens` tokens; raises QueueFullError or DrainingError."""
        with self._lock:
            if self._draining:
                raise DrainingError
            estimate = max(1, int(tokens * self._tokens_per_estimate))
            if self._waiting_requests:
                self._refuse_when_full(estimate)
            ticket: Ticket[Request, Payload, Result] = Ticket(
                request, deadline, waiter, self.clock(), self._queue.virtual_time
            )
            self._live[ticket] = None
            self._waiting_requests += 1
            self._set_waiting_tokens(ticket, estimate)
            self._arrived[ticket] = None
            self._observer.queue_depth_changed(self._waiting_requests)
            self._changed.notify()
            return ticket

    def _refuse_when_full(self, tokens: int) -> None:
        limits = self._limits
        wait_s = self.expected_wait_s
        if self._waiting_requests >= limits.max_queue_requests:
            raise QueueFullError(f"{self._waiting_requests} requests wait already", wait_s)
        if self._waiting_tokens + tokens > limits.max_queue_tokens:
            raise QueueFullError(f"{self._waiting_tokens} tokens wait already", wait_s)
        if wait_s > limits.max_queue_s:
            raise QueueFullError(f"the wait is about {wait_s * 1000:.0f} ms already", wait_s)

    def fail(self, ticket: Ticket[Request, Payload, Result], error: BaseException) -> None:
        """Settle a request with an error, unless it is settled; its waiting texts are dropped."""
        with self._lock:
            settled = self._settle(ticket, error)
        if settled:
            self._deliver([ticket])

    def cancel(self, ticket: Ticket[Request, Payload, Result]) -> None:
        """Drop a request whose caller left."""
        self.fail(ticket, CallerLeftError())

    def expire(self, ticket: Ticket[Request, Payload, Result]) -> None:
        """Drop a request whose deadline has passed."""
        self.fail(ticket, DeadlineExceededError())

    def take(self, timeout_s: float | None = None) -> Batch[Request, Payload, Result] | None:
        """Prepare what arrived and return a batch; None once closed, or when `timeout_s` passed without any."""
        with self._lock:
            self._free_runners += 1
            try:
                return self._take(timeout_s)
            finally:
                self._free_runners -= 1

    def _take(self, timeout_s: float | None) -> Batch[Request, Payload, Result] | None:
        continued = False  # at most one long list goes on being prepared before a batch is taken
        while True:
            while not (self._closed or self._arrived or self._queue or self._unfinished):
                if not self._changed.wait(timeout_s):
                    return None
            if self._closed:
                return None
            if self._arrived:
                self._prepare_and_queue(self._next_arrived())
            elif self._unfinished and not (continued and self._queue):
                self._prepare_and_queue([self._unfinished.popitem(last=False)[0]])
                continued = True
            else:
                now = self.clock()
                texts = self._queue.pick(len(self._live), self._free_runners, self._running_long > 0, now)
                late = self._settle_late(texts, now)
                if late:
                    with self._changed.unlocked:
                        self._deliver(late)
                elif texts:
                    return self._start(texts, now)

    def _next_arrived(self) -> list[Ticket[Request, Payload, Result]]:
        """Return a free runner's share of the requests that arrived, longest wait first."""
        share = min(TEXTS_AT_A_TIME, math.ceil(len(self._arrived) / self._free_runners))
        return [self._arrived.popitem(last=False)[0] for _ in range(share)]

    def _prepare_and_queue(self, tickets: Sequence[Ticket[Request, Payload, Result]]) -> None:
        """Prepare the next texts of each of these, without the lock, and queue those that have all of theirs."""
        with self._changed.unlocked:
            prepared = [ticket for ticket in tickets if self._prepare_some(ticket)]
        for ticket in prepared:
            if not ticket.settled:
                self._add(ticket)

    def drain(self) -> None:
        """Admit nothing from now on; what was admitted is still answered."""
        self._draining = True

    def abort(self) -> None:
        """Settle whatever is not settled with DrainingError."""
        self.drain()
        with self._lock:
            unsettled = [ticket for ticket in list(self._live) if self._settle(ticket, DrainingError())]
        if unsettled:
            self._deliver(unsettled)

    def close(self) -> None:
        """Abort, and let every runner that waits in `take` go."""
        self.abort()
        with self._lock:
            self._closed = True
            self._changed.notify_all()

    def _prepare_some(self, ticket: Ticket[Request, Payload, Result]) -> bool:
        """Prepare the next texts of a request; return whether these were the last."""
        if ticket.settled:  # its caller left, or its deadline passed
            return False
        texts = ticket._preparing or self._prepare(ticket.request)
        ticket._preparing = texts
        begun = len(ticket._prepared)
        try:
            ticket._prepared += itertools.islice(texts, TEXTS_AT_A_TIME)
        except Exception as error:
            self.fail(ticket, error)
            return False
        if len(ticket._prepared) < begun + TEXTS_AT_A_TIME:
            return True
        with self._lock:
            if not ticket.settled:
                self._unfinished[ticket] = None
        return False

    def _add(self, ticket: Ticket[Request, Payload, Result]) -> None:
        """Queue the texts of a request that is prepared."""
        payloads, lengths = zip(*ticket._prepared, strict=True)  # a request has at least one text
        ticket._prepared = []
        ticket.payloads = payloads
        tokens = sum(lengths)
        places: list[Any] = [None] * len(lengths)
        ticket.results = places
        ticket._unstarted = ticket._unanswered = len(lengths)
        ticket.queued_at = self.clock()
        estimated = ticket._waiting_tokens / self._tokens_per_estimate
        self._tokens_per_estimate += 0.02 * (min(1.0, tokens / estimated) - self._tokens_per_estimate)
        self._set_waiting_tokens(ticket, tokens)
        ticket._texts = self._queue.add(ticket, ticket._virtual_start, lengths, ticket.queued_at)

    def _settle_late(
        self, texts: "Texts[Request, Payload, Result]", now: float
    ) -> list[Ticket[Request, Payload, Result]]:
        """Settle the requests among these texts whose deadline has passed, and return them."""
        late = {text.owner for text in texts if text.owner.deadline <= now}
        return [ticket for ticket in late if self._settle(ticket, DeadlineExceededError())]

    def _start(self, texts: "Texts[Request, Payload, Result]", now: float) -> Batch[Request, Payload, Result]:
        batch = Batch(self, texts, now)
        self._queue.virtual_time += batch.tokens / len(self._live)
        for text in texts:
            ticket = text.owner
            if math.isnan(ticket.started_at):
                ticket.started_at = now
            self._queue.remove(text)
            ticket._unstarted -= 1
            self._set_waiting_tokens(ticket, ticket._waiting_tokens - text.length)
            if ticket._unstarted == 0:
                self._waiting_requests -= 1
        self._running += 1
        self._running_tokens += batch.tokens
        self._running_long += batch.is_long
        self._observer.queue_depth_changed(self._waiting_requests)
        self._observer.batch_taken(len(texts), batch.tokens, batch.padded_tokens)
        if self._queue or self._arrived or self._unfinished:
            self._changed.notify()
        return batch

    def _answer(
        self, batch: Batch[Request, Payload, Result], results: Sequence[Result | Exception], worked: bool
    ) -> None:
        settled = []
        with self._lock:
            self._running -= 1
            self._running_tokens -= batch.tokens
            self._running_long -= batch.is_long
            if worked:  # a failure, or a run that hung, says nothing of the speed
                self._measured_tokens = self._measured_tokens * DECAY + batch.tokens
                self._measured_s = self._measured_s * DECAY + self.clock() - batch.started_at
            for text, result in zip(batch._texts, results, strict=True):
                ticket = text.owner
                if ticket.settled:
                    continue
                if isinstance(result, Exception):
                    self._settle(ticket, result)
                    settled.append(ticket)
                    continue
                ticket.results[text.index] = result
                ticket._unanswered -= 1
                if ticket._unanswered == 0:
                    self._settle(ticket, None)
                    settled.append(ticket)
        if settled:
            self._deliver(settled)

    def _settle(self, ticket: Ticket[Request, Payload, Result], error: BaseException | None) -> bool:
        """Settle once and return whether this call did; the caller delivers it without the lock."""
        if ticket.settled:
            return False
        ticket.settled = True
        ticket.settled_at = self.clock()
        ticket.error = error
        del self._live[ticket]
        if not ticket._texts:
            self._arrived.pop(ticket, None)
            self._unfinished.pop(ticket, None)
        if ticket._unstarted:
            for text in ticket._texts:
                if text.waiting:
                    self._queue.remove(text)
            self._set_waiting_tokens(ticket, 0)
            self._waiting_requests -= 1
            self._observer.queue_depth_changed(self._waiting_requests)
        ticket._texts = ()
        ticket._preparing = None
        return True

    def _set_waiting_tokens(self, ticket: Ticket[Request, Payload, Result], tokens: int) -> None:
        # Of a long list others wait for a batch, however much of it comes later; a single text counts in full.
        contended = min(tokens, self._limits.max_batch_tokens)
        self._waiting_tokens += tokens - ticket._waiting_tokens
        self._contended += contended - ticket._contended
        ticket._waiting_tokens = tokens
        ticket._contended = contended
