"""Claims about runner threads: health tells the truth, and failures end."""

import gc
import threading
import time
import weakref
from collections.abc import Iterator, Sequence

from service.batcher import Batcher, Ticket
from service.errors import ModelFailedError
from service.fair_queue import BatchLimits
from service.runner import FAILURES_UNTIL_UNHEALTHY, MAX_HUNG_RUNS, RunnerPool

MAX_RUN_S = 1000.0  # on a clock that tests move


def prepare(text: str) -> Iterator[tuple[str, int]]:
    yield text, 1


def deliver(tickets: Sequence[Ticket[str, str, str]]) -> None:
    for ticket in tickets:
        ticket.waiter()


class Silent:
    def queue_depth_changed(self, depth: int) -> None:
        """Ignore."""

    def batch_taken(self, size: int, tokens: int, padded_tokens: int) -> None:
        """Ignore."""


class Bench:
    """A pool whose runs fail when told, and its reports."""

    def __init__(self, count: int = 1) -> None:
        self.error: BaseException | None = None
        self.reports: list[bool] = []
        self.reported = threading.Condition()
        self.probes = 0
        limits = BatchLimits(8, 100, 0.5, 100, 1000, 1000, 100)
        self.batcher: Batcher[str, str, str] = Batcher(limits, prepare, deliver, Silent())
        self.now = 0.0
        self.pool = RunnerPool(
            name="bench",
            batcher=self.batcher,
            run=self.run,
            probe=self.probe,
            failure=lambda cause: ModelFailedError("bench", cause),
            report=self.report,
            count=count,
            max_run_s=MAX_RUN_S,
            clock=lambda: self.now,
        )

    def run(self, payloads: Sequence[str]) -> list[str | Exception]:
        if self.error is not None:
            raise self.error
        return list(payloads)

    def probe(self) -> None:
        self.probes += 1
        if self.error is not None:
            raise self.error

    def report(self, healthy: bool) -> None:
        with self.reported:
            self.reports.append(healthy)
            self.reported.notify_all()

    def wait_for_reports(self, reports: list[bool]) -> None:
        with self.reported:
            assert self.reported.wait_for(lambda: self.reports == reports, timeout=30), self.reports

    def ask(self, text: str) -> BaseException | list[str]:
        settled = threading.Event()
        ticket = self.batcher.admit(text, 1, float("inf"), settled.set)
        assert settled.wait(timeout=30)
        return ticket.error or ticket.results


def test_a_pool_is_healthy_between_start_and_stop() -> None:
    bench = Bench(count=3)
    assert not bench.pool.healthy
    bench.pool.start()
    assert bench.pool.healthy
    assert bench.ask("a") == ["a"]
    bench.pool.stop()
    assert not bench.pool.healthy
    assert bench.pool.alive == 0
    assert bench.reports == [True, False]


def test_a_dead_runner_is_reported_and_replaced() -> None:
    bench = Bench()
    bench.pool.start()
    bench.error = SystemExit()
    assert isinstance(bench.ask("a"), ModelFailedError)
    bench.wait_for_reports([True, False, True])
    bench.error = None
    assert bench.ask("b") == ["b"]
    bench.pool.stop()


def test_a_model_that_keeps_failing_is_unhealthy_until_a_trial_run_works() -> None:
    bench = Bench()
    bench.pool.start()
    bench.error = ValueError("broken")
    for _ in range(FAILURES_UNTIL_UNHEALTHY):
        assert bench.pool.healthy
        assert isinstance(bench.ask("a"), ModelFailedError)
    bench.wait_for_reports([True, False])
    bench.error = None
    bench.wait_for_reports([True, False, True])
    assert bench.probes >= 1
    bench.pool.stop()


def test_a_wrong_number_of_results_fails_the_batch() -> None:
    bench = Bench()
    bench.run = lambda payloads: []  # type: ignore[method-assign]
    bench.pool._run = bench.run
    bench.pool.start()
    assert isinstance(bench.ask("a"), ModelFailedError)
    bench.pool.stop()


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
        bench.pool._run = self.run

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
    bench.now += MAX_RUN_S + 1
    bench.pool.replace_hung()
    thread.join(timeout=30)
    assert isinstance(answers[0], ModelFailedError)
    assert bench.pool.healthy
    assert bench.ask("b") == ["b"]
    stuck.let_go.set()  # its late result is nobody's
    assert bench.ask("c") == ["c"]
    assert bench.pool.alive == 1
    bench.pool.stop()


def test_a_model_that_hangs_again_and_again_is_unhealthy_and_not_given_more_threads() -> None:
    bench = Bench()
    bench.pool.start()
    stuck = Stuck(bench)
    for _ in range(MAX_HUNG_RUNS + 1):
        thread, _ = stuck.ask()
        bench.now += MAX_RUN_S + 1
        bench.pool.replace_hung()
        thread.join(timeout=30)
    assert bench.pool.alive == 0
    assert not bench.pool.healthy
    stuck.let_go.set()
    bench.pool.stop()
