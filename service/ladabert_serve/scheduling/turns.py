"""Which model a free runner works for: start-time fair queueing over seconds (Goyal, Vin and Cheng 1996).

Virtual time is the least tag of the models that have work. A model's tag advances by the seconds that runners work for
it, divided by its weight; a model that had no work starts at the present, so that nobody saves up turns. A run's time
is known at its end only. Until then its mean is charged, so that runners that are free together do not all choose the
same model.

Background lanes hold what no caller waits for. Their runs begin only while nothing else waits or runs, one at a time.
When callers came to need the runner meanwhile, a pause follows that is many times as long, so that such runs get in
the way for a small share of the time.
"""

import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

from ladabert_serve.scheduling.condition import LifoCondition
from ladabert_serve.scheduling.speed import Speed
from ladabert_serve.scheduling.ticket import Batch

SLOW_FACTOR = 4.0  # a model whose runs take this many times as long as another's may not have every runner
PAUSE_FACTOR = 200  # after a background run that was in the way
ACTIVE_S = 1.0  # after a request another is expected: callers in a closed loop pause for less


class Work(Protocol):
    """What a model has for the runners; both are called with the lock of `Turns` held."""

    @property
    def waits(self) -> bool:
        """Whether there is something to do."""

    def step(self) -> Batch[Any, Any, Any] | None:
        """Do a piece of work, in which the lock may be released; return a batch once there is one to run."""


class Lane:
    """One model's place among those that share the runners."""

    work: Work

    def __init__(
        self, turns: "Turns", weight: float = 1.0, most_runs: int | None = None, background: bool = False
    ) -> None:
        self.turns = turns
        self.background = background
        self._weight = weight
        self._most_runs = math.inf if most_runs is None else most_runs
        self._tag = 0.0  # seconds of virtual time
        self._running = 0
        self._asked_at = -math.inf
        self._speed = Speed()  # seconds a run
        self._trial_at = math.inf  # when a runner is to try whether the model works again
        self._suspended = False
        self._partners: list[Lane] = []

    def share_callers(self, other: "Lane", shared: bool = True) -> None:
        """Say whether both models answer the same callers: no runner is kept for the faster one then."""
        with self.turns.lock:
            for lane, partner in ((self, other), (other, self)):
                (lane._partners.append if shared else lane._partners.remove)(partner)

    @property
    def runners(self) -> float:
        """Runners that the model can count on: all that it may have, or its share while others have work, too."""
        others = (
            lane._weight for lane in self.turns.foreground if lane is not self and (lane._running or lane.work.waits)
        )
        return min(self._most_runs, self.turns.runners * self._weight / (self._weight + sum(others)))

    def asked(self, now: float) -> None:
        """Note that a request is about to come; called with the lock held."""
        self._asked_at = now
        if not self.work.waits:
            self._tag = max(self._tag, self.turns.virtual_time)

    def try_after(self, seconds: float | None) -> None:
        """Let a runner make a trial run that much later, whether or not requests come; None for never."""
        with self.turns.lock:
            self._trial_at = math.inf if seconds is None else self.turns.clock() + seconds
            self.turns.changed.notify()

    def suspend(self, suspended: bool) -> None:
        """Keep the runners from this model, or let them work for it again."""
        with self.turns.lock:
            self._suspended = suspended
            self.turns.changed.notify_all()

    def _is_due(self, now: float) -> bool:
        may_run = self._running < self._most_runs and not self._suspended
        return may_run and (self.work.waits or self._trial_at <= now)

    def _is_active(self, now: float) -> bool:
        return now < self._asked_at + ACTIVE_S or self._running > 0 or self.work.waits

    def _is_slower_than_one_of(self, lanes: Iterable["Lane"]) -> bool:
        seconds = (lane._speed.seconds_per_unit for lane in lanes if lane not in self._partners)
        return self._speed.seconds_per_unit > SLOW_FACTOR * min(seconds, default=math.inf)

    def _charge(self, seconds: float) -> None:
        self._tag += seconds / self._weight


class Turn:
    """One runner's time for one model: for a batch, or without one for a trial run."""

    __slots__ = ("batch", "began", "charged", "ended", "lane")

    def __init__(self, lane: Lane, batch: Batch[Any, Any, Any] | None, began: float, charged: float) -> None:
        self.lane = lane
        self.batch = batch
        self.began = began
        self.charged = charged  # seconds
        self.ended = False


class Turns:
    """The models that share so many runners; `lock` guards their queues, too, so that a runner can wait for all."""

    def __init__(
        self,
        runners: int,
        clock: Callable[[], float] = time.monotonic,
        report_busy: Callable[[int], None] | None = None,
    ) -> None:
        self.runners = runners
        self.clock = clock
        self.lock = threading.Lock()
        self.changed = LifoCondition(self.lock)
        self.lanes: list[Lane] = []
        self.virtual_time = 0.0
        self.free = 0  # threads in `take`: each waits, or prepares texts
        self._busy = 0
        self._resumes_at = -math.inf  # background runs
        self._report_busy = report_busy
        self._closed = False

    @property
    def foreground(self) -> Iterator[Lane]:
        """The lanes for which callers wait."""
        return (lane for lane in self.lanes if not lane.background)

    def add(self, lane: Lane) -> None:
        """Let the runners work for a model from now on."""
        with self.lock:
            lane._tag = self.virtual_time
            self.lanes.append(lane)
            self.changed.notify_all()

    def remove(self, lane: Lane) -> None:
        """Begin no more work for a model."""
        with self.lock:
            self.lanes.remove(lane)

    def close(self) -> None:
        """End every `take`."""
        with self.lock:
            self._closed = True
            self.changed.notify_all()

    def take(self, wait: bool = True) -> Turn | None:
        """Prepare texts until there is a batch or a trial run; None once closed, or when there is nothing to wait for.

        The turn is over with `end`.
        """
        with self.lock:
            self.free += 1
            try:
                return self._take(wait)
            finally:
                self.free -= 1

    def _take(self, wait: bool) -> Turn | None:
        while not self._closed:
            began = self.clock()
            lane = self._next(began)
            if lane is None:
                if not wait:
                    return None
                self.changed.wait(self._wait_s(began))
                continue
            if not lane.background:
                self.virtual_time = max(self.virtual_time, lane._tag)
            if not lane.work.waits:
                lane._trial_at = math.inf
                return self._begin(lane, None)
            batch = lane.work.step()
            lane._charge(self.clock() - began)
            if batch is not None:
                return self._begin(lane, batch)
        return None

    def end(self, turn: Turn, timed: bool = True) -> None:
        """Charge a turn; it ends once. `timed` says whether its time tells how long the model's runs take."""
        with self.lock:
            if turn.ended:
                return
            turn.ended = True
            seconds = self.clock() - turn.began
            turn.lane._charge(seconds - turn.charged)
            turn.lane._running -= 1
            if timed:
                turn.lane._speed.measure(1, seconds)
            if turn.lane.background and self._is_needed:
                self._resumes_at = self.clock() + PAUSE_FACTOR * seconds
            self._count_busy(-1)

    @property
    def _is_needed(self) -> bool:
        """Whether callers wait for a runner, or the next one would."""
        return self._busy == self.runners > 1 or any(lane.work.waits for lane in self.foreground)

    def _begin(self, lane: Lane, batch: Batch[Any, Any, Any] | None) -> Turn:
        now = self.clock()
        turn = Turn(lane, batch, now, lane._speed.seconds_per_unit)
        lane._charge(turn.charged)
        lane._running += 1
        self._count_busy(1)
        if self.changed.has_waiters and self._next(now) is not None:
            self.changed.notify()
        return turn

    def _count_busy(self, change: int) -> None:
        self._busy += change
        if self._report_busy is not None:
            self._report_busy(self._busy)

    def _next(self, now: float) -> Lane | None:
        """Return the model whose turn it is."""
        due = [lane for lane in self.lanes if lane._is_due(now)]
        if due and len(self.lanes) > 1:
            held_back = self._held_back(now)
            due = [lane for lane in due if lane not in held_back]
            if self._busy or now < self._resumes_at or any(not lane.background for lane in due):
                due = [lane for lane in due if not lane.background]
        return min(due, key=lambda lane: lane._tag, default=None)

    def _held_back(self, now: float) -> list[Lane]:
        """Return the models that have to wait, because slow ones must leave a runner to faster ones.

        A run cannot be interrupted. If slow ones had every runner, a fast model's texts would wait for a slow run. The
        stages of a cascade have the same callers, for whom more answers a second count.
        """
        if self.runners == 1 or self._busy < self.runners - 1:
            return []
        active = [lane for lane in self.foreground if lane._is_active(now) and lane._speed.seconds_per_unit]
        slow = [lane for lane in self.foreground if lane._is_slower_than_one_of(active)]
        return slow if sum(lane._running for lane in slow) >= self.runners - 1 else []

    def _wait_s(self, now: float) -> float | None:
        """Return the seconds until somebody's turn may come without further notice; None for never."""
        moments = [lane._trial_at for lane in self.lanes if not lane._suspended]
        if any(lane._is_due(now) for lane in self.foreground):  # held back, until a faster model is idle
            moments += [lane._asked_at + ACTIVE_S for lane in self.foreground]
        if not self._busy and any(lane.background and lane._is_due(now) for lane in self.lanes):
            moments.append(self._resumes_at)
        soonest = min((moment for moment in moments if moment > now), default=math.inf)
        return None if soonest == math.inf else soonest - now
