"""Runner threads: each takes a batch, runs it, answers it, and is replaced when it dies or hangs."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic

from service.batcher import Batch, Batcher, Payload, Request, Result
from service.errors import InferenceError

logger = logging.getLogger(__name__)

FAILURES_UNTIL_UNHEALTHY = 3  # whole batches in a row
PROBE_INTERVAL_S = 1.0  # between trial runs of a model that fails
RESTART_DELAY_S = 1.0  # before a thread is replaced whose predecessor died without answering a batch
MAX_HUNG_RUNS = 16  # threads given up that may still compute; over it none is replaced any more
WATCHES_PER_RUN = 10  # how often a run is looked at until it counts as hung
STOP_PATIENCE_S = 0.2  # for the batches that still run when the server ends, whose callers have left or were told


@dataclass(slots=True)
class _Run(Generic[Request, Payload, Result]):
    """What a thread computes, and since when; no batch is a trial run."""

    batch: Batch[Request, Payload, Result] | None
    started_at: float


class RunnerPool(Generic[Request, Payload, Result]):
    """`count` threads that run batches; `healthy` tells whether all live and the model works.

    `run` gets a batch's payloads and returns a result, or an error, for each; when it raises, or takes longer
    than `max_run_s`, every caller gets `failure(cause)`. `report` is told each change of `healthy`. `probe` is a run
    of its own, tried while the model fails, so that it can recover even when nobody sends requests.
    """

    def __init__(
        self,
        name: str,
        batcher: Batcher[Request, Payload, Result],
        run: Callable[[Sequence[Payload]], Sequence[Result | Exception]],
        probe: Callable[[], None],
        failure: Callable[[str], Exception],
        report: Callable[[bool], None],
        count: int,
        max_run_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._batcher = batcher
        self._run = run
        self._probe = probe
        self._failure = failure
        self._report = report
        self._reported = False
        self._count = count
        self._max_run_s = max_run_s
        self._clock = clock
        self._lock = threading.Lock()
        self._threads: set[threading.Thread] = set()
        self._runs: dict[threading.Thread, _Run[Request, Payload, Result]] = {}
        self._hung_runs = 0
        self._stopping = threading.Event()
        self._failures_in_a_row = 0
        self._deaths_in_a_row = 0

    @property
    def alive(self) -> int:
        """Runner threads that can take a batch."""
        return len(self._threads)

    @property
    def healthy(self) -> bool:
        """Whether every runner lives and the last runs did not all fail."""
        return self.alive == self._count and self._failures_in_a_row < FAILURES_UNTIL_UNHEALTHY

    def start(self) -> None:
        """Start the threads, and one that watches them."""
        for _ in range(self._count):
            self._spawn()
        threading.Thread(target=self._watch, name=f"watch-{self._name}", daemon=True).start()

    def stop(self) -> None:
        """Close the batcher and wait, a while, until every thread has answered the batch in its hands."""
        self._stopping.set()
        self._batcher.close()
        give_up_at = time.monotonic() + STOP_PATIENCE_S
        for thread in list(self._threads):
            thread.join(max(0.0, give_up_at - time.monotonic()))

    def replace_hung(self) -> None:
        """Give up each run that takes longer than `max_run_s`: answer its callers, and replace its thread."""
        now = self._clock()
        with self._lock:
            overdue = {thread: run for thread, run in self._runs.items() if now - run.started_at > self._max_run_s}
            for thread in overdue:
                del self._runs[thread]  # from now on its result is nobody's
                self._threads.discard(thread)
            self._hung_runs += len(overdue)
            self._failures_in_a_row += len(overdue)
            self._report_change()
        for run in overdue.values():
            texts = 0 if run.batch is None else len(run.batch.payloads)
            logger.error(
                "a run of %d texts on model %s takes longer than %g s and is given up; its thread is replaced",
                texts,
                self._name,
                self._max_run_s,
            )
            if run.batch is not None:
                run.batch.fail(self._failure("the run hung"))
            if self._hung_runs > MAX_HUNG_RUNS:
                logger.critical("model %s hung %d times; restart the server", self._name, self._hung_runs)
            elif not self._stopping.is_set():
                self._spawn()

    def _watch(self) -> None:
        while not self._stopping.wait(self._max_run_s / WATCHES_PER_RUN):
            self.replace_hung()

    def _spawn(self) -> None:
        thread = threading.Thread(target=self._live_and_be_replaced, name=f"runner-{self._name}", daemon=True)
        with self._lock:
            self._threads.add(thread)
            self._report_change()
        thread.start()

    def _live_and_be_replaced(self) -> None:
        try:
            self._work()
        except BaseException:
            logger.exception("a runner of model %s died and is replaced", self._name)
        with self._lock:
            if threading.current_thread() not in self._threads:  # it hung and was replaced meanwhile
                return
            self._threads.discard(threading.current_thread())
            self._deaths_in_a_row += 1
            self._report_change()
            again = self._deaths_in_a_row > 1
        if again:
            self._stopping.wait(RESTART_DELAY_S)
        if not self._stopping.is_set():
            self._spawn()

    def _work(self) -> None:
        while not self._batcher.closed and self._take_and_run():
            pass  # nothing of a batch is held while the thread waits for the next

    def _take_and_run(self) -> bool:
        """Wait for a batch and run it; return False when it was given up meanwhile."""
        failing = self._failures_in_a_row >= FAILURES_UNTIL_UNHEALTHY
        batch = self._batcher.take(PROBE_INTERVAL_S if failing else None)
        if batch is not None:
            return self._run_batch(batch)
        if failing and not self._batcher.closed:
            return self._try_again()
        return True

    def _begin(self, batch: Batch[Request, Payload, Result] | None) -> None:
        with self._lock:
            self._runs[threading.current_thread()] = _Run(batch, self._clock())

    def _end(self) -> bool:
        """Return whether the run is still this thread's, and not given up as hung."""
        with self._lock:
            return self._runs.pop(threading.current_thread(), None) is not None

    def _run_batch(self, batch: Batch[Request, Payload, Result]) -> bool:
        """Run a batch and answer it; return False when it was given up meanwhile."""
        self._begin(batch)
        texts = len(batch.payloads)
        try:
            results = self._run(batch.payloads)
            if len(results) != texts:
                raise InferenceError(f"{len(results)} results for {texts} texts")
        except BaseException as error:
            if not self._end():
                return False
            with self._lock:
                self._failures_in_a_row += 1
                self._report_change()
            logger.exception("a batch of %d texts failed on model %s", texts, self._name)
            batch.fail(self._failure(repr(error)))
            if not isinstance(error, Exception):
                raise
            return True
        if not self._end():
            return False
        batch.answer(results)
        if self._failures_in_a_row or self._deaths_in_a_row:
            with self._lock:
                self._failures_in_a_row = 0
                self._deaths_in_a_row = 0
                self._report_change()
        return True

    def _try_again(self) -> bool:
        """Make a trial run; return False when it was given up as hung."""
        self._begin(None)
        try:
            self._probe()
        except Exception as error:
            logger.error("model %s still fails: %s", self._name, error)
            return self._end()
        if not self._end():
            return False
        logger.info("model %s works again", self._name)
        with self._lock:
            self._failures_in_a_row = 0
            self._report_change()
        return True

    def _report_change(self) -> None:
        """Report `healthy` when it changed; called with the lock held."""
        if self.healthy != self._reported:
            self._reported = self.healthy
            self._report(self._reported)
