"""Claims about runner threads: health tells the truth, and failures end."""

import threading
from collections.abc import Sequence

from service.batcher import Batcher, BatchLimits
from service.errors import ModelFailedError
from service.runner import FAILURES_UNTIL_UNHEALTHY, RunnerPool


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
        self.batcher: Batcher[str, str] = Batcher(BatchLimits(8, 100, 0.5, 100, 1000), Silent())
        self.pool = RunnerPool(
            name="bench",
            batcher=self.batcher,
            run=self.run,
            probe=self.probe,
            failure=lambda: ModelFailedError("bench"),
            report=self.report,
            count=count,
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
        ticket = self.batcher.admit(1, float("inf"), settled.set)
        self.batcher.put(ticket, [text], [1])
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
