"""Runner threads: each takes a batch, runs it and answers it; a thread that dies or hangs is replaced."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic

from ladabert_serve.errors import InferenceError
from ladabert_serve.scheduling.batcher import Batcher
from ladabert_serve.scheduling.ticket import Batch, Payload, Request, Result

logger = logging.getLogger(__name__)

FAILURES_UNTIL_UNHEALTHY = 3  # whole batches in a row
PROBE_INTERVAL_S = 1.0  # between trial runs of a model that fails
RESTART_DELAY_S = 1.0  # before a thread is replaced, when the one before it died without answering a batch
MAX_HUNG_RUNS = 16  # threads that hang at the same time; beyond it they are not replaced
WATCHES_PER_RUN = 10  # checks of a run until it counts as hung
STOP_PATIENCE_S = 0.2  # for batches that still run when the server ends; their callers are answered already


@dataclass(slots=True)
class _Run(Generic[Request, Payload, Result]):
    """A run in progress; a trial run has no batch."""

    batch: Batch[Request, Payload, Result] | None
    started_at: float
    results: Sequence[Result | Exception]  # of the batch's rows that were run before, one by one


class _GivenUpError(BaseException):
    """The run of this thread took too long and was given up; the thread ends."""


class RunnerPool(Generic[Request, Payload, Result]):
    """`count` threads that run batches.

    `run` gets a batch's payloads and returns a result, or an error, for each. When it raises, the batch is run again
    row by row, and the callers of the rows that fail again get `failure(cause)`. A run that takes longer than
    `max_run_s` fails, too. `report` gets each change of `healthy`. While the model fails, `probe` is tried as well,
    so that the model recovers even when nobody sends requests.
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
        self._hung: set[threading.Thread] = set()  # given up, still computing
        self._stopping = threading.Event()
        self._failures_in_a_row = 0
        self._deaths_in_a_row = 0

    @property
    def alive(self) -> int:
        """Runner threads that can take a batch."""
        return len(self._threads)

    @property
    def healthy(self) -> bool:
        """Whether every runner is alive and the last runs did not all fail."""
        return self.alive == self._count and self._failures_in_a_row < FAILURES_UNTIL_UNHEALTHY

    @property
    def live(self) -> bool:
        """Whether runners that hang are still replaced."""
        return len(self._hung) <= MAX_HUNG_RUNS

    def start(self) -> None:
        """Start the threads, and one that watches them."""
        self._replace_missing()
        threading.Thread(target=self._watch, name=f"watch-{self._name}", daemon=True).start()

    def stop(self) -> None:
        """Close the batcher and wait, but not for long, until every thread has answered its batch."""
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
                del self._runs[thread]  # its result will be thrown away
            self._threads.difference_update(overdue)
            self._hung.update(overdue)
            self._failures_in_a_row += len(overdue)
            self._report_change()
        for run in overdue.values():
            texts = 0 if run.batch is None else len(run.batch.payloads)
            logger.error("a run of %d texts on model %s hangs: over %g s", texts, self._name, self._max_run_s)
            if run.batch is not None:
                failed = [self._failure("the run hung")] * (texts - len(run.results))
                run.batch.answer([*run.results, *failed], timed=False)
        if overdue and not self.live:
            logger.critical("%d runs of model %s hang; restart the server", len(self._hung), self._name)
        self._replace_missing()

    def _watch(self) -> None:
        while not self._stopping.wait(self._max_run_s / WATCHES_PER_RUN):
            self.replace_hung()

    def _replace_missing(self) -> None:
        """Start threads until there are `count`, unless too many hang."""
        with self._lock:
            while self.live and self.alive < self._count and not self._stopping.is_set():
                thread = threading.Thread(target=self._run_thread, name=f"runner-{self._name}", daemon=True)
                try:
                    thread.start()
                except RuntimeError as error:  # the system has no thread left; the watch tries again
                    logger.error("no runner for model %s: %s", self._name, error)
                    break
                self._threads.add(thread)
            self._report_change()

    def _run_thread(self) -> None:
        """Work until the batcher closes, the thread dies or its run is given up; then let it be replaced."""
        try:
            while not self._batcher.closed:
                self._take_and_run()  # the thread keeps nothing of a batch while it waits for the next
        except _GivenUpError:
            logger.warning("a run of model %s that was given up has ended", self._name)
        except BaseException:
            logger.exception("a runner of model %s died and is replaced", self._name)
        thread = threading.current_thread()
        with self._lock:
            died = thread in self._threads
            self._threads.discard(thread)
            self._hung.discard(thread)
            self._deaths_in_a_row += died
            self._report_change()
            delayed = died and self._deaths_in_a_row > 1
        if delayed:
            self._stopping.wait(RESTART_DELAY_S)
        self._replace_missing()

    def _take_and_run(self) -> None:
        failing = self._failures_in_a_row >= FAILURES_UNTIL_UNHEALTHY
        batch = self._batcher.take(PROBE_INTERVAL_S if failing else None)
        if batch is not None:
            self._run_batch(batch)
        elif failing and not self._batcher.closed:
            self._try_model()

    def _run_batch(self, batch: Batch[Request, Payload, Result]) -> None:
        """Run a batch and answer it; if it fails, run it again row by row, so that only bad rows fail."""
        payloads = batch.payloads
        results, works = self._attempt(batch, payloads)
        if works:
            batch.answer(results)
            if self._failures_in_a_row or self._deaths_in_a_row:
                self._count_run(works)
            return
        if len(payloads) > 1:
            rows: list[Result | Exception] = []
            for payload in payloads:
                row, row_works = self._attempt(batch, [payload], rows)
                rows += row
                works |= row_works
            results = rows
        self._count_run(works)
        batch.answer(results, timed=False)

    def _attempt(
        self,
        batch: Batch[Request, Payload, Result],
        payloads: Sequence[Payload],
        earlier: Sequence[Result | Exception] = (),
    ) -> tuple[Sequence[Result | Exception], bool]:
        """Return results and True, or when the run raised anything, failures and False; raises _GivenUpError."""
        self._begin(batch, earlier)
        works = True
        try:
            results = self._run(payloads)
            if len(results) != len(payloads):
                raise InferenceError(f"{len(results)} results for {len(payloads)} texts")
        except BaseException as error:
            logger.exception("a batch of %d texts failed on model %s", len(payloads), self._name)
            results, works = [self._failure(repr(error))] * len(payloads), False
        self._end()
        return results, works

    def _try_model(self) -> None:
        """Make a trial run; raises _GivenUpError."""
        self._begin(None)
        works = True
        try:
            self._probe()
        except BaseException as error:
            logger.error("model %s still fails: %r", self._name, error)
            works = False
        self._end()
        if works:
            logger.info("model %s works again", self._name)
            self._count_run(works)

    def _begin(self, batch: Batch[Request, Payload, Result] | None, results: Sequence[Result | Exception] = ()) -> None:
        with self._lock:
            self._runs[threading.current_thread()] = _Run(batch, self._clock(), results)

    def _end(self) -> None:
        """Stop the watch over this thread's run; raises _GivenUpError when it was given up as hung."""
        with self._lock:
            if self._runs.pop(threading.current_thread(), None) is None:
                raise _GivenUpError

    def _count_run(self, works: bool) -> None:
        with self._lock:
            self._failures_in_a_row = 0 if works else self._failures_in_a_row + 1
            if works:
                self._deaths_in_a_row = 0
            self._report_change()

    def _report_change(self) -> None:
        """Report `healthy` when it changed; called with the lock held."""
        if self.healthy != self._reported:
            self._reported = self.healthy
            self._report(self._reported)
