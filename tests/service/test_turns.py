"""Claims about which model a runner works for, with models of fixed speed and a clock that is moved."""

import heapq
import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ladabert_serve.scheduling.batcher import Batcher
from ladabert_serve.scheduling.fair_queue import BatchLimits
from ladabert_serve.scheduling.ticket import Preparation, Ticket
from ladabert_serve.scheduling.turns import ACTIVE_S, PAUSE_FACTOR, SLOW_FACTOR, Lane, Turn, Turns

LIMITS = BatchLimits(1, 100, 0.5, 100000, 1000000, 1e9, 100)
NumberTicket = Ticket[int, int, int]


def prepare(number: int) -> Preparation[int]:
    yield from ()
    return [(number, 1)]


class Fake:
    """A model each of whose runs takes as long; it remembers when its texts were answered."""

    def __init__(self, site: "Site", run_s: float, weight: float, most_runs: int | None, background: bool) -> None:
        self.run_s = run_s
        self.lane = Lane(site.turns, weight, most_runs, background)
        self.batcher: Batcher[int, int, int] = Batcher(LIMITS, prepare, self._deliver, self, self.lane)
        self.answers: list[int] = []
        self.waits_s: list[float] = []
        self.worked_s = 0.0
        self.again = False  # whether a caller asks again once it is answered
        site.turns.add(self.lane)

    def queue_depth_changed(self, depth: int) -> None:
        """Ignore."""

    def batch_taken(self, size: int, tokens: int, padded_tokens: int) -> None:
        """Ignore."""

    def ask(self, texts: int = 1) -> None:
        """Let that many requests come."""
        for number in range(texts):
            self.batcher.admit(number, 1, 1, float("inf"))

    def _deliver(self, tickets: Sequence[NumberTicket]) -> None:
        self.answers += [ticket.request for ticket in tickets]
        self.waits_s += [ticket.started_at - ticket.admitted_at for ticket in tickets]
        if self.again:
            self.ask(len(tickets))


class Site:
    """Runners that take turns on a clock that jumps to the next end of a run."""

    def __init__(self, runners: int) -> None:
        self.now = 0.0
        self.turns = Turns(runners, lambda: self.now)
        self.models: list[Fake] = []
        self._ends: list[tuple[float, int, Turn, Fake]] = []  # a heap
        self._numbers = itertools.count()

    def add(self, run_s: float, weight: float = 1.0, most_runs: int | None = None, background: bool = False) -> Fake:
        """Serve one more model."""
        self.models.append(Fake(self, run_s, weight, most_runs, background))
        return self.models[-1]

    def running(self, model: Fake) -> int:
        """Return the runners that work for it."""
        return sum(each is model for *_, each in self._ends)

    def start_runs(self) -> None:
        """Let every free runner take a turn, if there is one."""
        while len(self._ends) < self.turns.runners and (turn := self.turns.take(wait=False)) is not None:
            model = next(model for model in self.models if model.lane is turn.lane)
            heapq.heappush(self._ends, (self.now + model.run_s, next(self._numbers), turn, model))

    def pass_time(self, seconds: float) -> None:
        """Let runs begin and end for so long."""
        until = self.now + seconds
        self.start_runs()
        while self._ends and self._ends[0][0] <= until:
            self.now, _, turn, model = heapq.heappop(self._ends)
            model.worked_s += model.run_s
            self.turns.end(turn)
            assert turn.batch is not None
            turn.batch.answer(turn.batch.payloads)
            self.start_runs()
        self.now = until
        self.start_runs()


RUNS = st.tuples(st.floats(0.001, 0.1), st.floats(0.2, 5.0), st.integers(0, 30))


@settings(max_examples=60, deadline=None)
@given(models=st.lists(RUNS, min_size=1, max_size=6), runners=st.integers(1, 4))
def test_every_text_of_every_model_is_answered_once_and_no_runner_rests_for_ever(
    models: list[tuple[float, float, int]], runners: int
) -> None:
    site = Site(runners)
    for run_s, weight, texts in models:
        site.add(run_s, weight).ask(texts)
    site.pass_time(sum(run_s * texts for run_s, _, texts in models) + len(models) * (ACTIVE_S + 1))
    for model, (_, _, texts) in zip(site.models, models, strict=True):
        assert sorted(model.answers) == list(range(texts))
        assert model.batcher.live_requests == 0


@settings(max_examples=40, deadline=None)
@given(
    runs=st.lists(st.tuples(st.floats(0.001, 0.0039), st.floats(0.5, 4.0)), min_size=2, max_size=5),
    runners=st.integers(1, 4),
)
def test_busy_models_of_like_speed_get_runner_seconds_by_their_weights(
    runs: list[tuple[float, float]], runners: int
) -> None:
    site = Site(runners)
    for run_s, weight in runs:
        model = site.add(run_s, weight)
        model.again = True
        model.ask(2 * runners + 2)
    site.pass_time(4.0)
    total = sum(model.worked_s for model in site.models)
    assert total >= 0.99 * 4.0 * runners
    weights = sum(weight for _, weight in runs)
    for model, (_, weight) in zip(site.models, runs, strict=True):
        assert model.worked_s / total == pytest.approx(weight / weights, abs=0.02)


def test_a_slow_model_alone_has_every_runner() -> None:
    site = Site(2)
    site.add(0.001)
    slow = site.add(0.04)
    slow.ask(10)
    site.start_runs()
    assert site.running(slow) == 2


def busy_pair(runners: int) -> tuple[Site, Fake, Fake]:
    """A fast model that is asked now and then, and a slow one that always has work; both speeds are known."""
    site = Site(runners)
    fast, slow = site.add(0.001), site.add(0.04)
    fast.ask()
    slow.ask()
    site.pass_time(0.1)
    slow.again = True
    slow.ask(8)
    fast.ask()
    return site, fast, slow


@pytest.mark.parametrize("runners", [2, 3, 8])
def test_a_slow_model_leaves_a_runner_to_a_fast_one_that_is_asked_now_and_then(runners: int) -> None:
    site, fast, slow = busy_pair(runners)
    fast.waits_s.clear()
    for _ in range(50):
        site.pass_time(0.03)
        assert site.running(slow) <= runners - 1
        fast.ask()
    assert slow.worked_s > 0.9 * (runners - 1) * 1.5
    assert max(fast.waits_s) == 0


def test_a_slow_model_has_every_runner_again_a_while_after_the_fast_one_was_asked() -> None:
    site, _, slow = busy_pair(2)
    site.pass_time(ACTIVE_S + 0.1)
    assert site.running(slow) == 2


def test_a_slow_model_that_answers_the_fast_ones_callers_has_every_runner_until_it_does_so_no_more() -> None:
    site, fast, slow = busy_pair(2)
    slow.lane.share_callers(fast.lane)
    site.pass_time(0.05)
    assert site.running(slow) == 2
    fast.waits_s.clear()
    fast.ask()
    site.pass_time(0.1)
    assert max(fast.waits_s) <= slow.run_s
    slow.lane.share_callers(fast.lane, False)
    site.pass_time(0.1)
    fast.ask()
    assert site.running(slow) == 1


def test_with_one_runner_a_fast_model_waits_for_one_slow_run_at_most() -> None:
    site, fast, slow = busy_pair(1)
    fast.again = True
    fast.ask(3)
    fast.waits_s.clear()
    site.pass_time(4.0)
    assert max(fast.waits_s) <= slow.run_s + 4 * fast.run_s + 1e-9
    assert slow.worked_s == pytest.approx(fast.worked_s, rel=0.05)


def test_models_whose_speeds_differ_little_may_have_every_runner() -> None:
    site = Site(2)
    fast, other = site.add(0.01), site.add(0.01 * SLOW_FACTOR)
    for model in (fast, other):
        model.ask()
    site.pass_time(0.2)
    fast.ask()
    other.ask(4)
    site.pass_time(0.011)
    assert site.running(other) == 2


def test_a_model_that_was_idle_has_saved_up_no_turns() -> None:
    site = Site(1)
    busy, idle = site.add(0.01), site.add(0.01)
    for model in (busy, idle):
        model.ask()
    busy.again = True
    busy.ask(5)
    site.pass_time(10.0)
    idle.again = True
    idle.ask(5)
    worked_s = busy.worked_s
    site.pass_time(1.0)
    assert busy.worked_s - worked_s == pytest.approx(0.5, abs=0.03)


def test_runners_that_are_free_together_do_not_all_choose_the_same_model() -> None:
    site = Site(4)
    models = [site.add(0.01) for _ in range(4)]
    for model in models:  # their speed is measured
        model.ask()
    site.pass_time(0.1)
    for model in models:
        model.ask(10)
    site.start_runs()
    assert [site.running(model) for model in models] == [1, 1, 1, 1]


def test_a_model_has_no_more_runs_at_a_time_than_it_may() -> None:
    site = Site(4)
    model = site.add(0.01, most_runs=1)
    model.ask(10)
    site.start_runs()
    assert site.running(model) == 1
    site.pass_time(0.1)
    assert len(model.answers) == 10


def test_the_expected_wait_counts_a_models_share_of_the_runners_while_others_are_busy() -> None:
    site = Site(2)
    light, heavy = site.add(0.01, weight=1), site.add(0.01, weight=3)
    assert light.lane.runners == 2
    heavy.ask(10)
    assert (light.lane.runners, heavy.lane.runners) == (0.5, 2)


def test_a_model_that_was_removed_gets_no_turn_and_the_others_go_on() -> None:
    site = Site(1)
    gone, other = site.add(0.01), site.add(0.01)
    gone.ask(5)
    other.ask(5)
    site.turns.remove(gone.lane)
    site.pass_time(1.0)
    assert (len(gone.answers), len(other.answers)) == (0, 5)


def test_a_runner_works_for_the_model_that_is_suspended_only_once_it_is_so_no_more() -> None:
    site = Site(1)
    model = site.add(0.01)
    model.ask(2)
    model.lane.suspend(True)
    site.pass_time(1.0)
    assert not model.answers
    model.lane.suspend(False)
    site.pass_time(1.0)
    assert len(model.answers) == 2


def test_a_trial_run_is_due_once_after_its_time() -> None:
    site = Site(1)
    model = site.add(0.01)
    model.lane.try_after(1.0)
    assert site.turns.take(wait=False) is None
    site.now = 1.0
    turn = site.turns.take(wait=False)
    assert turn is not None
    assert turn.batch is None
    assert site.turns.take(wait=False) is None


@settings(max_examples=60, deadline=None)
@given(
    requests=st.lists(st.tuples(st.floats(0, 0.05), st.integers(1, 4)), max_size=30),
    shadow_s=st.floats(0.001, 0.1),
    runners=st.integers(1, 4),
)
def test_a_background_run_begins_only_while_nothing_else_waits_or_runs(
    requests: list[tuple[float, int]], shadow_s: float, runners: int
) -> None:
    site = Site(runners)
    callers, shadow = site.add(0.01), site.add(shadow_s, background=True)
    began = shadow.lane._charge  # called when a run begins, too

    def charge(seconds: float) -> None:
        if not shadow.lane._running:
            assert site.running(callers) == 0
            assert not callers.batcher.waits
        began(seconds)

    shadow.lane._charge = charge  # type: ignore[method-assign]
    shadow.ask(10)
    for pause_s, texts in requests:
        site.pass_time(pause_s)
        callers.ask(texts)
        site.start_runs()
        assert site.running(shadow) <= 1
    for _ in range(len(requests) + 10):  # a runner that waits looks again after a pause
        site.pass_time(shadow_s * (PAUSE_FACTOR + 1))
    assert len(callers.answers) == sum(texts for _, texts in requests)
    assert sorted(shadow.answers) == list(range(10))


@pytest.mark.parametrize("runners", [1, 2])
def test_callers_wait_for_background_runs_in_a_small_share_of_the_time(runners: int) -> None:
    site = Site(runners)
    callers, shadow = site.add(0.001), site.add(0.02, background=True)
    shadow.again = True
    shadow.ask(5)
    callers.ask()
    for _ in range(20_000):  # there is a gap after each burst
        site.pass_time(0.005)
        callers.ask(2)
    site.pass_time(1)
    late = sum(wait_s > 0.002 for wait_s in callers.waits_s)
    assert shadow.answers
    assert late / len(callers.waits_s) < 0.01


def test_a_runner_looks_again_once_the_pause_is_over() -> None:
    site = Site(1)
    callers, shadow = site.add(0.001), site.add(0.01, background=True)
    shadow.ask(2)
    site.start_runs()
    callers.ask()
    site.pass_time(0.02)
    assert (len(callers.answers), len(shadow.answers)) == (1, 1)
    assert site.turns._wait_s(site.now) == pytest.approx(0.01 * PAUSE_FACTOR - 0.01)


def test_an_idle_server_runs_what_is_in_the_background_without_a_pause() -> None:
    site = Site(1)
    site.add(0.001)
    shadow = site.add(0.02, background=True)
    shadow.ask(50)
    site.pass_time(50 * 0.02 + 0.001)
    assert len(shadow.answers) == 50


def test_background_work_makes_no_caller_expect_a_longer_wait() -> None:
    site = Site(2)
    callers, shadow = site.add(0.01), site.add(0.01, weight=100, background=True)
    shadow.ask(50)
    assert callers.lane.runners == 2
