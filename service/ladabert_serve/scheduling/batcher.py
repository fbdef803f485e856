"""Admits requests to one model, prepares their texts and makes batches of near-equal length.

There is no timer: a free runner takes what waits. The batcher knows neither HTTP nor ONNX; `flows.py` and
`fair_queue.py` decide whose turn it is among its requests, and `turns.py` which model a runner works for.
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Generic, Protocol

from ladabert_serve.errors import CallerLeftError, DeadlineExceededError, DrainingError, QueueFullError
from ladabert_serve.scheduling.fair_queue import BatchLimits
from ladabert_serve.scheduling.flows import Flow, Flows, Place, Waiting
from ladabert_serve.scheduling.speed import Speed
from ladabert_serve.scheduling.ticket import Batch, Payload, Preparation, Request, Result, Texts, Ticket
from ladabert_serve.scheduling.turns import Lane

TEXTS_AT_A_TIME = 16  # of a long list, before other requests get their turn
PIECE_BYTES = 8192  # of text that a runner prepares before other requests get their turn
ASSUMED_BYTES_PER_TOKEN = 100  # that are prepared in the time that a token is computed, until it is measured


class BatcherObserver(Protocol):
    """Receives what happens inside; called with the batcher's lock held, so it must not block."""

    def queue_depth_changed(self, depth: int) -> None:
        """Report that `depth` requests have texts that wait."""

    def batch_taken(self, size: int, tokens: int, padded_tokens: int) -> None:
        """Report that a runner took a batch of `size` texts."""


class Batcher(Generic[Request, Payload, Result]):
    """The queue of one model; every method may be called from any thread.

    `lane` is the model's place among those that share the runners; its lock and clock are the batcher's. `prepare` runs
    in the runners, without the lock. It returns a request's texts with their lengths in tokens, or
    raises the error for its caller. After each piece of work but the last it yields the bytes that it prepared.
    `deliver` gets the tickets that were settled, from any thread and without the lock; it must not block.
    """

    def __init__(
        self,
        limits: BatchLimits,
        prepare: Callable[[Request], Preparation[Payload]],
        deliver: Callable[[Sequence[Ticket[Request, Payload, Result]]], None],
        observer: BatcherObserver,
        lane: Lane,
    ) -> None:
        self.lane = lane
        self.clock = lane.turns.clock
        self._limits = limits
        self._prepare = prepare
        self._deliver = deliver
        self._observer = observer
        self._lock = lane.turns.lock
        self._changed = lane.turns.changed
        self._live: dict[Ticket[Request, Payload, Result], None] = {}
        self._arrived: OrderedDict[Ticket[Request, Payload, Result], None] = OrderedDict()  # to be prepared
        self._unfinished: OrderedDict[Ticket[Request, Payload, Result], None] = OrderedDict()  # long
        self._flows: Flows[Ticket[Request, Payload, Result]] = Flows(limits)
        self._waiting = Waiting()  # in all flows together
        self._tokens_per_estimate = 1.0
        self._inference_speed = Speed()  # seconds per token
        self._preparation_speed = Speed()  # seconds per byte
        self._long_in_preparation = False  # by one runner at a time: the others stay free for short requests
        self._running_tokens = 0
        self._running_long = 0  # batches of long requests' texts
        self._draining = False
        self._aborted = False
        lane.work = self

    @property
    def live_requests(self) -> int:
        """Requests that were admitted and not yet settled."""
        return len(self._live)

    @property
    def queue_depth(self) -> int:
        """Requests of which at least one text waits for a runner."""
        return self._waiting.requests

    @property
    def queued_tokens(self) -> int:
        """Tokens that wait, estimated where the texts are not prepared yet."""
        return self._waiting.tokens

    @property
    def expected_wait_s(self) -> float:
        """Seconds that a short text would wait if it came now, at the speed of the last batches; 0 before the first."""
        return self._seconds(self._waiting.contended_tokens, self._waiting.contended_bytes)

    def _seconds(self, contended_tokens: int, contended_bytes: int) -> float:
        """Return how long a short text waits for these, and for what runs already."""
        tokens_s = (contended_tokens + self._running_tokens) * self._inference_speed.seconds_per_unit
        return (tokens_s + contended_bytes * self._preparation_speed.seconds_per_unit) / self.lane.runners

    def admit(
        self,
        request: Request,
        tokens: int,
        preparation_bytes: int,
        deadline: float,
        waiter: Any = None,
        flow: Hashable = None,
        place: Place | None = None,
    ) -> Ticket[Request, Payload, Result]:
        """Accept a request of at most so many tokens and bytes; raises QueueFullError or DrainingError.

        The flows that have requests share the queue and the runners equally. A request that waited for another model
        until now has its `place` from the moment when it came: it goes before those that came later, also while the
        batcher drains.
        """
        with self._lock:
            if self._aborted or (self._draining and place is None):
                raise DrainingError
            estimate = max(1, int(tokens * self._tokens_per_estimate))
            is_long = preparation_bytes > PIECE_BYTES
            self._refuse_when_full(flow, estimate, is_long)
            now = self.clock()
            self.lane.asked(now)
            ticket: Ticket[Request, Payload, Result] = Ticket(request, deadline, waiter, now, self._flows.enter(flow))
            if place is not None:
                ticket._virtual_start = place.virtual_start(ticket._flow)
            self._live[ticket] = None
            self._count_waiting(ticket, 1)
            self._set_waiting(ticket, estimate, preparation_bytes)
            (self._unfinished if is_long else self._arrived)[ticket] = None
            self._changed.notify()
            return ticket

    def place(self, flow: Hashable) -> Place:
        """Return where a request of this flow stands that comes now, for `admit` later on."""
        with self._lock:
            return self._flows.place(flow)

    def settled(self, request: Request, place: Place | None = None) -> Ticket[Request, Payload, Result]:
        """Return the settled ticket of a request of which nothing has to be computed; raises DrainingError."""
        if self._draining and place is None:
            raise DrainingError
        now = self.clock()
        ticket: Ticket[Request, Payload, Result] = Ticket(request, now, None, now, Flow(None, self._limits))
        ticket.queued_at = ticket.started_at = ticket.settled_at = now
        ticket.settled = True
        return ticket

    def _refuse_when_full(self, name: Hashable, tokens: int, is_long: bool) -> None:
        flow = self._flows.get(name)
        if flow is None or not flow.waiting.requests:
            return
        limits = self._limits
        share = len(self._flows)
        waiting = flow.waiting
        contended_tokens = min(self._waiting.contended_tokens, share * waiting.contended_tokens)
        contended_bytes = min(self._waiting.contended_bytes, share * waiting.contended_bytes)
        wait_s = self._seconds(contended_tokens, contended_bytes)
        if is_long:  # which waits for the whole preparation of others, not for a piece of it
            wait_s += (waiting.size_bytes - waiting.contended_bytes) * self._preparation_speed.seconds_per_unit
        if waiting.requests * share >= limits.max_queue_requests:
            raise QueueFullError(f"{waiting.requests} requests wait already", wait_s)
        if (waiting.tokens + tokens) * share > limits.max_queue_tokens:
            raise QueueFullError(f"{waiting.tokens} tokens wait already", wait_s)
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

    @property
    def waits(self) -> bool:
        """Whether there is something for a runner to do; called with the lock held."""
        return bool(self._arrived or self._flows) or self._long_may_go_on

    def step(self) -> Batch[Request, Payload, Result] | None:
        """Prepare some texts and return None, or return a batch; called by a runner with the lock held."""
        if self._arrived:
            self._prepare_and_queue(self._next_arrived())
        elif self._long_may_go_on and self._is_due(long := self._next_long()):
            if self._flows:
                self._changed.notify()  # another runner can take a batch meanwhile
            self._long_in_preparation = True
            del self._unfinished[long]
            try:
                self._prepare_and_queue([long])
            finally:
                self._long_in_preparation = False
        else:
            now = self.clock()
            texts = self._flows.pick(len(self._live), self.lane.turns.free, self._running_long > 0, now)
            late = self._settle_late(texts, now)
            if late:
                with self._changed.released:
                    self._deliver(late)
            elif texts:
                return self._start(texts, now)
        return None

    @property
    def _long_may_go_on(self) -> bool:
        return bool(self._unfinished) and not self._long_in_preparation

    def _is_due(self, ticket: Ticket[Request, Payload, Result]) -> bool:
        """Return whether a long request is to be prepared before a text that waits is run."""
        return self._flows.is_due(ticket._flow, ticket._virtual_start)

    def _next_long(self) -> Ticket[Request, Payload, Result]:
        """Return the long request of the flow that was served least, among its own the one that waits longest."""
        if len(self._flows) == 1:
            return next(iter(self._unfinished))
        return min(self._unfinished, key=lambda ticket: ticket._flow.served)

    def _next_arrived(self) -> list[Ticket[Request, Payload, Result]]:
        """Return a free runner's share of the requests that arrived, longest wait first."""
        share = min(TEXTS_AT_A_TIME, math.ceil(len(self._arrived) / self.lane.turns.free))
        tickets: list[Ticket[Request, Payload, Result]] = []
        size_bytes = 0
        while len(tickets) < share and size_bytes < PIECE_BYTES:
            tickets.append(self._arrived.popitem(last=False)[0])
            size_bytes += tickets[-1]._waiting_bytes
        return tickets

    def _prepare_and_queue(self, tickets: Sequence[Ticket[Request, Payload, Result]]) -> None:
        """Prepare a piece of each request, without the lock, and queue those that are complete."""
        began = self.clock()
        with self._changed.released:
            sizes = [self._prepare_piece(ticket) for ticket in tickets]
        self._preparation_speed.measure(sum(sizes), self.clock() - began)
        for ticket, size_bytes in zip(tickets, sizes, strict=True):
            if ticket.settled:
                continue
            # Preparation counts as work, like the tokens that could have been computed in its time. A request that
            # waited for it could not use the runners meanwhile, and gets no credit for that time.
            tokens = self._as_tokens(size_bytes)
            ticket._flow.charge(tokens)
            ticket._virtual_start = max(ticket._virtual_start + tokens, ticket._flow.virtual_time)
            self._set_waiting(ticket, ticket._waiting_tokens, max(0, ticket._waiting_bytes - size_bytes))
            if ticket._prepared:
                self._add(ticket)
            else:
                self._unfinished[ticket] = None

    def _as_tokens(self, size_bytes: int) -> float:
        s_per_byte, s_per_token = self._preparation_speed.seconds_per_unit, self._inference_speed.seconds_per_unit
        if not (s_per_byte and s_per_token):
            return size_bytes / ASSUMED_BYTES_PER_TOKEN
        return size_bytes * s_per_byte / s_per_token

    def drain(self) -> None:
        """Admit nothing from now on; what was admitted is still answered."""
        self._draining = True

    def abort(self) -> None:
        """Settle every unsettled request with DrainingError."""
        self.drain()
        with self._lock:
            self._aborted = True
            unsettled = [ticket for ticket in list(self._live) if self._settle(ticket, DrainingError())]
        if unsettled:
            self._deliver(unsettled)

    def _prepare_piece(self, ticket: Ticket[Request, Payload, Result]) -> int:
        """Prepare the next texts of a request and return their bytes; `_prepared` is set after the last."""
        size_bytes = 0
        if ticket.settled:  # its caller left, or its deadline passed
            return size_bytes
        try:
            preparation = ticket._preparation or self._prepare(ticket.request)
            ticket._preparation = preparation
            for _ in range(TEXTS_AT_A_TIME):
                size_bytes += next(preparation)
                if size_bytes >= PIECE_BYTES:
                    break
        except StopIteration as end:
            ticket._prepared = end.value
            size_bytes = ticket._waiting_bytes
            if not ticket._prepared:
                self.fail(ticket, RuntimeError("a request was prepared and has no texts"))
        except BaseException as error:  # a panic in a library is no Exception
            self.fail(ticket, error)
        return size_bytes

    def _add(self, ticket: Ticket[Request, Payload, Result]) -> None:
        """Queue the texts of a request that is prepared."""
        payloads, lengths = zip(*ticket._prepared, strict=True)
        ticket._prepared = ()
        ticket._preparation = None
        ticket.payloads = payloads
        tokens = sum(lengths)
        places: list[Any] = [None] * len(lengths)
        ticket.results = places
        ticket._unstarted = ticket._unanswered = len(lengths)
        ticket.queued_at = self.clock()
        estimated = ticket._waiting_tokens / self._tokens_per_estimate
        self._tokens_per_estimate += 0.02 * (min(1.0, tokens / estimated) - self._tokens_per_estimate)
        self._set_waiting(ticket, tokens, 0)
        ticket._texts = self._flows.add(ticket._flow, ticket, ticket._virtual_start, lengths, ticket.queued_at)

    def _settle_late(
        self, texts: Texts[Request, Payload, Result], now: float
    ) -> list[Ticket[Request, Payload, Result]]:
        """Settle the requests among these texts whose deadline has passed, and return them."""
        late = {text.owner for text in texts if text.owner.deadline <= now}
        return [ticket for ticket in late if self._settle(ticket, DeadlineExceededError())]

    def _start(self, texts: Texts[Request, Payload, Result], now: float) -> Batch[Request, Payload, Result]:
        batch = Batch(texts, now, self._answer)
        tokens: dict[Flow[Ticket[Request, Payload, Result]], int] = {}
        for text in texts:
            ticket = text.owner
            tokens[ticket._flow] = tokens.get(ticket._flow, 0) + text.length
            if math.isnan(ticket.started_at):
                ticket.started_at = now
            ticket._flow.remove(text)
            ticket._unstarted -= 1
            self._set_waiting(ticket, ticket._waiting_tokens - text.length, 0)
            if ticket._unstarted == 0:
                self._count_waiting(ticket, -1)
        self._flows.charge(tokens)
        self._running_tokens += batch.tokens
        self._running_long += batch.is_long
        self._observer.batch_taken(len(texts), batch.tokens, batch.padded_tokens)
        return batch

    def _answer(
        self, batch: Batch[Request, Payload, Result], results: Sequence[Result | Exception], timed: bool
    ) -> None:
        settled = []
        with self._lock:
            self._running_tokens -= batch.tokens
            self._running_long -= batch.is_long
            if timed:
                self._inference_speed.measure(batch.tokens, self.clock() - batch.started_at)
            for text, result in zip(batch.texts, results, strict=True):
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
                    ticket._flow.remove(text)
            self._set_waiting(ticket, 0, 0)
            self._count_waiting(ticket, -1)
        self._flows.leave(ticket._flow)
        ticket._texts = ()
        ticket._preparation = None
        return True

    def _set_waiting(self, ticket: Ticket[Request, Payload, Result], tokens: int, size_bytes: int) -> None:
        """Set what waits of a request: tokens to compute and bytes to prepare."""
        # Other requests wait for one batch and one piece of a long request, because the rest yields to them.
        contended_tokens = min(tokens, self._limits.max_batch_tokens)
        contended_bytes = min(size_bytes, PIECE_BYTES)
        for waiting in (self._waiting, ticket._flow.waiting):
            waiting.tokens += tokens - ticket._waiting_tokens
            waiting.size_bytes += size_bytes - ticket._waiting_bytes
            waiting.contended_tokens += contended_tokens - ticket._contended_tokens
            waiting.contended_bytes += contended_bytes - ticket._contended_bytes
        ticket._waiting_tokens, ticket._waiting_bytes = tokens, size_bytes
        ticket._contended_tokens, ticket._contended_bytes = contended_tokens, contended_bytes

    def _count_waiting(self, ticket: Ticket[Request, Payload, Result], change: int) -> None:
        """Count a request as waiting, or as waiting no more."""
        self._waiting.requests += change
        ticket._flow.waiting.requests += change
        self._observer.queue_depth_changed(self.queue_depth)
