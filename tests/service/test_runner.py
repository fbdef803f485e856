"""Claims about runner threads: health tells the truth, and failures end."""

import gc
import threading
import time
import weakref
from collections.abc import Sequence

import pytest

from ladabert_serve.errors import ModelFailedError
from ladabert_serve.scheduling.batcher import Batcher
from ladabert_serve.scheduling.fair_queue import BatchLimits
from ladabert_serve.scheduling.runner import RunnerPool
from ladabert_serve.scheduling.ticket import Batch, Preparation, Ticket
from ladabert_serve.scheduling.turns import Lane
from ladabert_serve.scheduling.workload import FAILURES_UNTIL_UNHEALTHY, MAX_HUNG_RUNS, Workload

MAX_RUN_S = 1000.0  # which tests skip


def prepare(text: str) -> Preparation[str]:
    yield from ()
    return [(text, 1)]


class DyingBatcher(Batcher[str, str, str]):
    """Kills the runner that takes a batch, once, when told."""

    bench: "Bench"

    def step(self) -> Batch[str, str, str] | None:
        batch = super().step()
        if batch is not None and self.bench.dies:
            self.bench.dies = False
            raise SystemExit
        return batch


def deliver(tickets: Sequence[Ticket[str, str, str]]) -> None:
    for ticket in tickets:
        ticket.waiter()


class Silent:
    def queue_depth_changed(self, depth: int) -> None:
        """Ignore."""

    def batch_taken(self, size: int, tokens: int, padded_tokens: int) -> None:
        """Ignore."""


class Bench:
    """A model whose runs fail when told, and its reports; with a pool of its own unless another is given."""

    def __init__(self, count: int = 1, pool: RunnerPool | None = None, max_run_s: float = MAX_RUN_S) -> None:
        self.error: BaseException | None = None
        self.bad: set[str] = set()  # texts whose runs fail
        self.runs: list[list[str]] = []
        self.dies = False
        self.reports: list[bool] = []
        self.reported = threading.Condition()
        self.probes = 0
        limits = BatchLimits(8, 100, 0.5, 100, 1000, 1000, 100)
        self.skipped_s = 0.0
        self.pool = pool or RunnerPool(count, clock=lambda: time.monotonic() + self.skipped_s)
        lane = Lane(self.pool.turns)
        self.batcher = DyingBatcher(limits, prepare, deliver, Silent(), lane)
        self.batcher.bench = self
        self.workload: Workload[str, str] = Workload(
            name="bench",
            lane=lane,
            run=self.run,
            probe=self.probe,
            failure=self.failure,
            report=self.report,
            max_run_s=max_run_s,
        )
        self.pool.add(self.workload)

    @property
    def healthy(self) -> bool:
        return self.pool.healthy(self.workload)

    def run(self, payloads: Sequence[str]) -> list[str | Exception]:
        self.runs.append([str(payload) for payload in payloads])
        if self.error is not None:
            raise self.error
        if self.bad.intersection(payloads):
            raise ValueError("a bad row")
        return list(payloads)

    def probe(self) -> None:
        with self.reported:
            self.probes += 1
            self.reported.notify_all()
        if self.error is not None:
            raise self.error

    def report(self, healthy: bool) -> None:
        with self.reported:
            self.reports.append(healthy)
            self.reported.notify_all()

    def wait_for_reports(self, reports: list[bool]) -> None:
        with self.reported:
            assert self.reported.wait_for(lambda: self.reports == reports, timeout=30), self.reports

    def wait_for_probes(self, probes: int) -> None:
        with self.reported:
            assert self.reported.wait_for(lambda: self.probes >= probes, timeout=30), self.probes

    def failure(self, cause: str) -> ModelFailedError:
        return ModelFailedError("bench", cause)

    def ask_together(self, *texts: str) -> list[BaseException | list[str]]:
        """Ask before the pool starts, so that the texts share a batch."""
        settled = [threading.Event() for _ in texts]
        tickets = [
            self.batcher.admit(text, 1, 1, float("inf"), event.set) for text, event in zip(texts, settled, strict=True)
        ]
        self.pool.start()
        assert all(event.wait(timeout=30) for event in settled)
        return [ticket.error or ticket.results for ticket in tickets]

    def ask(self, text: str) -> BaseException | list[str]:
        settled = threading.Event()
        ticket = self.batcher.admit(text, 1, 1, float("inf"), settled.set)
        assert settled.wait(timeout=30)
        return ticket.error or ticket.results


def test_a_pool_is_healthy_between_start_and_stop() -> None:
    bench = Bench(count=3)
    assert not bench.healthy
    bench.pool.start()
    assert bench.healthy
    assert bench.ask("a") == ["a"]
    bench.pool.stop()
    assert not bench.healthy
    assert bench.pool.alive == 0
    assert bench.reports == [True, False]


def test_a_dead_runner_is_reported_and_replaced() -> None:
    bench = Bench()
    bench.pool.start()
    bench.dies = True
    settled = threading.Event()
    bench.batcher.admit("a", 1, 1, float("inf"), settled.set)
    bench.wait_for_reports([True, False, True])
    bench.batcher.abort()
    assert settled.wait(timeout=30)
    bench.pool.stop()


def test_runners_that_the_system_has_no_threads_for_are_started_later(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(count=2)
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name.startswith("runner"):
            raise RuntimeError("can't start new thread")
        start(thread)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        bench.pool.start()
    assert bench.pool.alive == 0
    bench.pool.replace_hung()
    assert bench.healthy
    assert bench.ask("a") == ["a"]
    bench.pool.stop()


def test_a_model_that_keeps_failing_is_unhealthy_until_a_trial_run_works() -> None:
    bench = Bench()
    bench.pool.start()
    bench.error = ValueError("broken")
    for _ in range(FAILURES_UNTIL_UNHEALTHY):
        assert bench.healthy
        assert isinstance(bench.ask("a"), ModelFailedError)
    bench.wait_for_reports([True, False])
    bench.error = None
    bench.wait_for_reports([True, False, True])
    assert bench.probes >= 1
    bench.pool.stop()


def test_a_wrong_number_of_results_fails_the_batch() -> None:
    bench = Bench()
    bench.run = lambda payloads: []  # type: ignore[method-assign]
    bench.workload.run = bench.run
    bench.pool.start()
    assert isinstance(bench.ask("a"), ModelFailedError)
    bench.pool.stop()


def test_one_bad_row_fails_its_caller_and_no_other_and_does_not_count_as_a_failure_of_the_model() -> None:
    bench = Bench()
    bench.bad = {"b"}
    a, b, c = bench.ask_together("a", "b", "c")
    assert (a, c) == (["a"], ["c"])
    assert isinstance(b, ModelFailedError)
    assert bench.runs == [["a", "b", "c"], ["a"], ["b"], ["c"]]
    assert bench.workload.failures_in_a_row == 0
    assert bench.batcher.expected_wait_s == 0  # what was run twice says nothing about the speed
    bench.pool.stop()


def test_a_batch_whose_rows_all_fail_again_counts_as_one_failure() -> None:
    bench = Bench()
    bench.error = Panic()
    answers = bench.ask_together("a", "b")
    assert all(isinstance(answer, ModelFailedError) for answer in answers)
    assert bench.runs == [["a", "b"], ["a"], ["b"]]
    assert bench.workload.failures_in_a_row == 1
    bench.pool.stop()


def test_a_batch_of_one_that_fails_is_not_run_again() -> None:
    bench = Bench()
    bench.bad = {"a"}
    assert isinstance(bench.ask_together("a")[0], ModelFailedError)
    assert bench.runs == [["a"]]
    assert bench.workload.failures_in_a_row == 1
    bench.pool.stop()


def test_a_panic_in_a_trial_run_leaves_every_runner_in_place() -> None:
    bench = Bench()
    bench.pool.start()
    bench.error = Panic()
    for _ in range(FAILURES_UNTIL_UNHEALTHY):
        bench.ask("a")
    bench.wait_for_probes(2)
    bench.skipped_s += MAX_RUN_S + 1
    bench.pool.replace_hung()
    assert bench.pool.alive == 1
    assert bench.workload.live
    bench.error = None
    bench.wait_for_reports([True, False, True])
    assert bench.ask("b") == ["b"]
    bench.pool.stop()
    assert bench.pool.alive == 0


class Panic(BaseException):
    """What a library raises that is no Exception."""


class Text(str):
    """A text that can be watched."""


def test_a_runner_that_waits_holds_nothing_of_its_last_batch() -> None:
    bench = Bench()
    bench.pool.start()
    text = Text("a")
    left = weakref.ref(text)
    assert bench.ask(text) == ["a"]
    del text
    deadline = time.monotonic() + 30
    while left() is not None and time.monotonic() < deadline:
        gc.collect()
    assert left() is None
    bench.pool.stop()


class Stuck:
    """A run that hangs until it is let go."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.began = threading.Semaphore(0)
        self.let_go = threading.Event()
        bench.workload.run = self.run

    def run(self, payloads: Sequence[str]) -> list[str | Exception]:
        if payloads == ["stuck"]:
            self.began.release()
            assert self.let_go.wait(timeout=30)
        return list(payloads)

    def ask(self) -> "tuple[threading.Thread, list[BaseException | list[str]]]":
        answers: list[BaseException | list[str]] = []
        thread = threading.Thread(target=lambda: answers.append(self.bench.ask("stuck")))
        thread.start()
        assert self.began.acquire(timeout=30)
        return thread, answers


def test_a_run_that_hangs_fails_its_callers_and_its_runner_is_replaced() -> None:
    bench = Bench()
    bench.pool.start()
    stuck = Stuck(bench)
    thread, answers = stuck.ask()
    bench.pool.replace_hung()
    assert not answers  # not yet late
    bench.skipped_s += MAX_RUN_S + 1
    bench.pool.replace_hung()
    thread.join(timeout=30)
    assert isinstance(answers[0], ModelFailedError)
    assert bench.healthy
    assert bench.ask("b") == ["b"]
    stuck.let_go.set()  # its late result is nobody's
    assert bench.ask("c") == ["c"]
    assert bench.pool.alive == 1
    bench.pool.stop()


def test_a_run_that_hangs_is_noticed_within_the_limit_of_a_model_that_came_after_the_start() -> None:
    pool = RunnerPool(1)
    pool.start()
    stuck = Stuck(Bench(pool=pool, max_run_s=0.05))
    thread, answers = stuck.ask()
    thread.join(timeout=3)  # without models the watch looks every six seconds
    assert isinstance(answers[0], ModelFailedError)
    stuck.let_go.set()
    pool.stop()


def test_a_model_that_hangs_again_and_again_is_unhealthy_and_not_given_more_runs() -> None:
    bench = Bench()
    bench.pool.start()
    stuck = Stuck(bench)
    for _ in range(MAX_HUNG_RUNS + 1):
        assert bench.workload.live
        thread, _ = stuck.ask()
        bench.skipped_s += MAX_RUN_S + 1
        bench.pool.replace_hung()
        thread.join(timeout=30)
    assert not bench.healthy
    assert not bench.workload.live
    assert bench.pool.alive == 1  # for other models
    stuck.let_go.set()  # the threads return and are accounted for
    assert bench.ask("b") == ["b"]
    assert bench.pool.alive == 1
    assert bench.workload.live
    bench.pool.stop()


def test_hung_runs_that_return_in_time_are_not_added_up() -> None:
    bench = Bench()
    bench.pool.start()
    for _ in range(MAX_HUNG_RUNS + 2):
        stuck = Stuck(bench)
        thread, _ = stuck.ask()
        bench.skipped_s += MAX_RUN_S + 1
        bench.pool.replace_hung()
        stuck.let_go.set()
        thread.join(timeout=30)
        for runner in list(bench.workload.hung):
            runner.join(timeout=30)
    assert bench.workload.live
    assert not bench.workload.hung
    assert bench.ask("b") == ["b"]
    bench.pool.stop()


def test_a_row_that_hangs_when_it_is_run_again_fails_and_those_before_it_keep_their_results() -> None:
    bench = Bench()
    stuck = Stuck(bench)

    def fail_together(payloads: Sequence[str]) -> list[str | Exception]:
        if len(payloads) > 1:
            raise ValueError("a bad row")
        return stuck.run(payloads)

    bench.workload.run = fail_together
    answers: list[BaseException | list[str]] = []
    thread = threading.Thread(target=lambda: answers.extend(bench.ask_together("a", "stuck")))
    thread.start()
    assert stuck.began.acquire(timeout=30)
    bench.skipped_s += MAX_RUN_S + 1
    bench.pool.replace_hung()
    thread.join(timeout=30)
    assert answers[0] == ["a"]
    assert isinstance(answers[1], ModelFailedError)
    assert bench.healthy
    stuck.let_go.set()
    bench.pool.stop()


class Shared:
    """Two models that share a pool; a run of the text `stuck` hangs until it is let go."""

    def __init__(self, count: int) -> None:
        self.first = Bench(count)
        self.second = Bench(pool=self.first.pool)
        self.first.pool.start()

    def stop(self) -> None:
        self.first.pool.stop()


def test_models_share_the_threads_of_a_pool() -> None:
    before = set(threading.enumerate())  # some of other tests may still end
    shared = Shared(count=2)
    assert len(set(threading.enumerate()) - before) == 3  # one watches
    assert shared.first.ask("a") == ["a"]
    assert shared.second.ask("b") == ["b"]
    assert (shared.first.runs, shared.second.runs) == ([["a"]], [["b"]])
    shared.stop()


def test_a_model_that_fails_is_unhealthy_alone_and_recovers_alone() -> None:
    shared = Shared(count=1)
    shared.first.error = ValueError("broken")
    for _ in range(FAILURES_UNTIL_UNHEALTHY):
        assert isinstance(shared.first.ask("a"), ModelFailedError)
    shared.first.wait_for_reports([True, False])
    assert shared.second.healthy
    assert shared.second.ask("b") == ["b"]
    shared.first.error = None
    shared.first.wait_for_reports([True, False, True])
    assert shared.second.reports == [True]
    shared.stop()


def test_a_model_of_which_too_many_runs_hang_takes_no_runner_from_the_others() -> None:
    shared = Shared(count=1)
    stuck = Stuck(shared.first)
    for _ in range(MAX_HUNG_RUNS + 1):
        thread, _ = stuck.ask()
        shared.first.skipped_s += MAX_RUN_S + 1
        shared.first.pool.replace_hung()
        thread.join(timeout=30)
    assert not shared.first.workload.live
    assert shared.second.workload.live
    assert shared.second.healthy
    assert shared.second.ask("b") == ["b"]
    stuck.let_go.set()
    shared.stop()


def test_a_model_that_is_removed_leaves_the_runners_to_the_others() -> None:
    shared = Shared(count=2)
    shared.first.batcher.abort()
    shared.first.pool.remove(shared.first.workload)
    assert shared.first.pool.alive == 2
    assert shared.second.ask("b") == ["b"]
    shared.stop()


def test_a_pool_counts_the_runners_that_are_busy() -> None:
    busy: list[int] = []
    pool = RunnerPool(2, busy.append)
    bench = Bench(pool=pool)
    pool.start()
    assert bench.ask("a") == ["a"]
    pool.stop()
    assert busy == [1, 0]


def test_a_runner_that_was_held_back_from_a_slow_model_takes_it_up_once_the_fast_one_is_idle() -> None:
    shared = Shared(count=2)
    fast, slow = shared.first, shared.second
    slow.workload.lane._speed.measure(1, 1.0)
    fast.workload.lane._speed.measure(1, 0.001)
    assert fast.ask("a") == ["a"]
    stuck = Stuck(slow)
    threads = [threading.Thread(target=slow.ask, args=("stuck",)) for _ in range(2)]
    for thread in threads:
        thread.start()
    assert stuck.began.acquire(timeout=30)
    assert stuck.began.acquire(timeout=30)  # the second runner, without a further notice
    stuck.let_go.set()
    for thread in threads:
        thread.join(timeout=30)
    shared.stop()
