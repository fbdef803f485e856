"""Admits requests, shares the runners fairly among them and hands out batches of near-equal length.

There is no timer: a batch is what waits when a runner becomes free. Knows neither HTTP nor ONNX.

Order is weighted fair queueing over tokens (Demers, Keshav and Shenker 1989): virtual time advances by the
tokens computed for each request that is being served, a text's tag is the virtual time at its admission plus
the tokens of its request up to and with itself, and the least tag goes first. So a short text does not wait
behind long ones, nor one text behind another caller's list, and nothing waits for ever.
"""

import heapq
import itertools
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from service.errors import CallerLeftError, DeadlineExceededError, DrainingError, QueueFullError
from service.wakeup import LastInFirstOut

Request = TypeVar("Request")
Payload = TypeVar("Payload")
Result = TypeVar("Result")

TEXTS_AT_A_TIME = 16  # of a long list that are worked on before what else waits gets its turn
YIELD_S = 1.0  # after a short request, in which the next one is expected: closed-loop callers think for less
DECAY = 0.95  # a batch's weight in the measured speed, relative to the batch after it


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """What one batch may hold and what may wait."""

    max_batch_size: int  # texts
    max_batch_tokens: int  # padding included
    max_batch_padding: float  # share of the batch's tokens
    max_queue_requests: int
    max_queue_tokens: int
    max_queue_s: float  # that a request may expect to wait
    fair_window_tokens: int  # how far a batch may run ahead of the fair order to find texts of its length


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
    _items: "Sequence[_Item[Request, Payload, Result]]" = ()  # in the order in which they go
    _is_long = False  # several texts, together longer than the fair window
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


class _Item(Generic[Request, Payload, Result]):
    """One text in the queue."""

    waiting = True

    def __init__(
        self,
        ticket: Ticket[Request, Payload, Result],
        index: int,
        payload: Payload,
        length: int,
        position: int,
        turn: tuple[float, int],
    ) -> None:
        self.ticket = ticket
        self.index = index  # among its request's texts
        self.payload = payload
        self.length = length
        self.position = position  # among its request's texts in the order in which they go
        self.turn = turn  # its tag, and a number by which equal tags stay in order


class Batch(Generic[Request, Payload, Result]):
    """Texts that run together; answered or failed once, by the runner that took it."""

    __slots__ = ("_batcher", "_items", "answered", "longest", "payloads", "started_at", "tokens")

    def __init__(
        self,
        batcher: "Batcher[Request, Payload, Result]",
        items: "Sequence[_Item[Request, Payload, Result]]",
        started_at: float,
    ) -> None:
        self._batcher = batcher
        self._items = items
        self.started_at = started_at
        self.payloads = [item.payload for item in items]
        lengths = [item.length for item in items]
        self.longest = max(lengths)
        self.tokens = sum(lengths)
        self.answered = False

    @property
    def padded_tokens(self) -> int:
        """Tokens that the model computes, padding included."""
        return self.longest * len(self._items)

    def answer(self, results: Sequence[Result | Exception]) -> None:
        """Give each text its result, or the error that its caller gets, in the order of `payloads`."""
        if len(results) != len(self._items):
            raise ValueError(f"{len(results)} results for a batch of {len(self._items)}")
        self._answer(results, worked=True)

    def fail(self, error: Exception) -> None:
        """Give every text the same error."""
        self._answer([error] * len(self._items), worked=False)

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
        # Texts that wait: those within the window by tag and by length, and of each longer request the first beyond.
        self._ready: list[tuple[tuple[float, int], _Item[Request, Payload, Result]]] = []  # a heap
        self._by_length: dict[int, dict[_Item[Request, Payload, Result], None]] = {}
        self._beyond: list[tuple[tuple[float, int], _Item[Request, Payload, Result]]] = []  # a heap
        self._ready_texts = 0
        self._queued_texts = 0  # since the start
        self._short_request_at = -math.inf  # when the last request that is not long was queued
        self._virtual_time = 0.0  # tokens computed for each live request
        self._waiting_requests = 0
        self._waiting_tokens = 0
        self._contended = 0
        self._tokens_per_estimate = 1.0
        self._measured_tokens = 0.0
        self._measured_s = 0.0
        self._free_runners = 0
        self._running = 0  # batches
        self._running_tokens = 0
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
                request, deadline, waiter, self.clock(), self._virtual_time
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
            while not (self._closed or self._arrived or self._ready_texts or self._beyond or self._unfinished):
                if not self._changed.wait(timeout_s):
                    return None
            if self._closed:
                return None
            if self._arrived:
                self._prepare_and_queue(self._next_arrived())
            elif self._unfinished and not (continued and (self._ready_texts or self._beyond)):
                self._prepare_and_queue([self._unfinished.popitem(last=False)[0]])
                continued = True
            else:
                items = self._pick()
                late = self._settle_late(items)
                if late:
                    with self._changed.unlocked:
                        self._deliver(late)
                elif items:
                    return self._start(items)

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
                self._queue(ticket)

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

    def _queue(self, ticket: Ticket[Request, Payload, Result]) -> None:
        payloads, lengths = zip(*ticket._prepared, strict=True)  # a request has at least one text
        ticket._prepared = []
        ticket.payloads = payloads
        count = len(lengths)
        tokens = sum(lengths)
        places: list[Any] = [None] * count
        ticket.results = places
        ticket._unstarted = ticket._unanswered = count
        ticket.queued_at = self.clock()
        ticket._is_long = count > 1 and tokens > self._limits.fair_window_tokens
        if not ticket._is_long:
            self._short_request_at = ticket.queued_at
        estimated = ticket._waiting_tokens / self._tokens_per_estimate
        self._tokens_per_estimate += 0.02 * (min(1.0, tokens / estimated) - self._tokens_per_estimate)
        self._set_waiting_tokens(ticket, tokens)
        # Neighbours in length share a batch; results have places of their own.
        order: Iterable[int] = sorted(range(count), key=lengths.__getitem__) if count > 1 else (0,)
        items: list[_Item[Request, Payload, Result]] = []
        tag = ticket._virtual_start
        for index in order:
            tag += lengths[index]
            self._queued_texts += 1
            turn = (tag, self._queued_texts)
            items.append(_Item(ticket, index, payloads[index], lengths[index], len(items), turn))
        ticket._items = items
        heapq.heappush(self._beyond, (items[0].turn, items[0]))

    def _bring_within_window(self) -> "_Item[Request, Payload, Result] | None":
        """Make the texts ready that are within the window from the least tag on; return the text that has it."""
        while self._ready and not self._ready[0][1].waiting:
            heapq.heappop(self._ready)
        while self._beyond and not self._beyond[0][1].waiting:
            heapq.heappop(self._beyond)
        heads = [heap[0][0][0] for heap in (self._ready, self._beyond) if heap]
        if not heads:
            return None
        # A request that is alone holds nobody up.
        window = self._limits.fair_window_tokens if len(self._live) > 1 else self._limits.max_batch_tokens
        horizon = min(heads) + window
        while self._beyond and self._beyond[0][0][0] <= horizon:
            entry = heapq.heappop(self._beyond)
            item = entry[1]
            if not item.waiting:
                continue
            heapq.heappush(self._ready, entry)
            self._by_length.setdefault(item.length, {})[item] = None
            self._ready_texts += 1
            if item.position + 1 < len(item.ticket._items):
                follower = item.ticket._items[item.position + 1]
                heapq.heappush(self._beyond, (follower.turn, follower))
        return self._ready[0][1]

    def _pick(self) -> "list[_Item[Request, Payload, Result]]":
        """Choose the text whose turn it is and those nearest to it in length, as far as the limits allow.

        Nothing interrupts a run. So while short requests come, the texts of long ones run in batches of no more
        tokens than the window, lest a short one wait for long, and apart from it, lest they make its run longer.
        """
        first = self._bring_within_window()
        if first is None:
            return []
        limits = self._limits
        max_tokens = limits.max_batch_tokens
        without_long = False
        if self.clock() < self._short_request_at + YIELD_S:
            without_long = not first.ticket._is_long
            if not without_long:
                max_tokens = min(max_tokens, limits.fair_window_tokens)
        # Runners that are free at the same moment share what waits, or one would work and the rest look on.
        most = min(limits.max_batch_size, math.ceil(self._ready_texts / max(1, self._free_runners)))
        picked = [first]
        if most == 1:
            return picked
        tokens = longest = first.length
        nearest_first = first.length - 0.25  # of two lengths as near, the shorter one
        for length in sorted(self._by_length, key=lambda other: abs(other - nearest_first)):
            longest_then = max(longest, length)
            for item in self._by_length[length]:
                if item is first or (without_long and item.ticket._is_long):
                    continue
                padded = longest_then * (len(picked) + 1)
                padding = padded - tokens - length
                if padded > max_tokens or padding > limits.max_batch_padding * padded:
                    break
                picked.append(item)
                if len(picked) == most:
                    return picked
                tokens += length
                longest = longest_then
        return picked

    def _settle_late(
        self, items: "Iterable[_Item[Request, Payload, Result]]"
    ) -> list[Ticket[Request, Payload, Result]]:
        """Settle the requests among these texts whose deadline has passed, and return them."""
        now = self.clock()
        late = {item.ticket for item in items if item.ticket.deadline <= now}
        return [ticket for ticket in late if self._settle(ticket, DeadlineExceededError())]

    def _start(self, items: "Sequence[_Item[Request, Payload, Result]]") -> Batch[Request, Payload, Result]:
        now = self.clock()
        batch = Batch(self, items, now)
        self._virtual_time += batch.tokens / len(self._live)
        for item in items:
            ticket = item.ticket
            if math.isnan(ticket.started_at):
                ticket.started_at = now
            self._unqueue(item)
            ticket._unstarted -= 1
            self._set_waiting_tokens(ticket, ticket._waiting_tokens - item.length)
            if ticket._unstarted == 0:
                self._waiting_requests -= 1
        self._running += 1
        self._running_tokens += batch.tokens
        self._observer.queue_depth_changed(self._waiting_requests)
        self._observer.batch_taken(len(items), batch.tokens, batch.padded_tokens)
        if self._ready_texts or self._beyond or self._arrived or self._unfinished:
            self._changed.notify()
        return batch

    def _answer(
        self, batch: Batch[Request, Payload, Result], results: Sequence[Result | Exception], worked: bool
    ) -> None:
        settled = []
        with self._lock:
            self._running -= 1
            self._running_tokens -= batch.tokens
            if worked:  # a failure, or a run that hung, says nothing of the speed
                self._measured_tokens = self._measured_tokens * DECAY + batch.tokens
                self._measured_s = self._measured_s * DECAY + self.clock() - batch.started_at
            for item, result in zip(batch._items, results, strict=True):
                ticket = item.ticket
                if ticket.settled:
                    continue
                if isinstance(result, Exception):
                    self._settle(ticket, result)
                    settled.append(ticket)
                    continue
                ticket.results[item.index] = result
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
        if not ticket._items:
            self._arrived.pop(ticket, None)
            self._unfinished.pop(ticket, None)
        if ticket._unstarted:
            for item in ticket._items:
                if item.waiting:
                    self._unqueue(item)
            self._set_waiting_tokens(ticket, 0)
            self._waiting_requests -= 1
            self._observer.queue_depth_changed(self._waiting_requests)
        ticket._items = ()
        ticket._preparing = None
        return True

    def _unqueue(self, item: "_Item[Request, Payload, Result]") -> None:
        """Take a text out of the queue; the heaps forget it when it comes to their top."""
        item.waiting = False
        same_length = self._by_length.get(item.length)
        if same_length is not None and item in same_length:
            self._ready_texts -= 1
            del same_length[item]
            if not same_length:
                del self._by_length[item.length]

    def _set_waiting_tokens(self, ticket: Ticket[Request, Payload, Result], tokens: int) -> None:
        # Of a long list others wait for a batch, however much of it comes later; a single text counts in full.
        contended = min(tokens, self._limits.max_batch_tokens)
        self._waiting_tokens += tokens - ticket._waiting_tokens
        self._contended += contended - ticket._contended
        ticket._waiting_tokens = tokens
        ticket._contended = contended
