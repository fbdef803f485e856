"""Runner threads, shared by the models: each takes a batch, runs it and answers it; a dead or hung one is replaced."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ladabert_serve.errors import InferenceError
from ladabert_serve.scheduling.ticket import Batch
from ladabert_serve.scheduling.turns import Lane, Turn, Turns
from ladabert_serve.scheduling.workload import Workload

logger = logging.getLogger(__name__)

RESTART_DELAY_S = 1.0  # before a thread is replaced, when the one before it died without answering a batch
WATCHES_PER_RUN = 10  # checks of a run until it counts as hung
LONGEST_WATCH_S = 60.0  # between two checks
STOP_PATIENCE_S = 0.2  # for batches that still run when the server ends; their callers are answered already

AnyWorkload = Workload[Any, Any]
Results = Sequence[Any]


@dataclass(slots=True)
class _Run:
    """A run in progress."""

    workload: AnyWorkload
    turn: Turn
    started_at: float
    results: Results  # of the batch's rows that were run before, one by one


class _GivenUpError(BaseException):
    """The run of this thread took too long and was given up; the thread ends."""

    def __init__(self, workload: AnyWorkload) -> None:
        self.workload = workload


class RunnerPool:
    """`count` threads that run the batches of every workload that was added; `turns` says whose turn it is."""

    def __init__(
        self,
        count: int,
        report_busy: Callable[[int], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.turns = Turns(count, clock, report_busy)
        self.count = count
        self._clock = clock
        self._lock = threading.Lock()
        self._workloads: dict[Lane, AnyWorkload] = {}
        self._threads: set[threading.Thread] = set()
        self._runs: dict[threading.Thread, _Run] = {}
        self._stopping = threading.Event()
        self._watch_sooner = threading.Event()  # a model was added whose limit may be shorter, or the pool stops
        self._deaths_in_a_row = 0

    @property
    def alive(self) -> int:
        """Runner threads that can take a batch."""
        return len(self._threads)

    def healthy(self, workload: AnyWorkload) -> bool:
        """Return whether every runner is alive and works for this model, whose last runs did not all fail."""
        return self.alive == self.count and not workload.failing and workload.live and workload.lane in self._workloads

    def start(self) -> None:
        """Start the threads, and one that watches them."""
        self._replace_missing()
        threading.Thread(target=self._watch, name="watch", daemon=True).start()

    def add(self, workload: AnyWorkload) -> None:
        """Work for a model from now on."""
        with self._lock:
            self._workloads[workload.lane] = workload
            self._report_changes()
        self._watch_sooner.set()
        self.turns.add(workload.lane)

    def remove(self, workload: AnyWorkload) -> None:
        """Begin nothing more for a model; a batch that runs is still answered."""
        self.turns.remove(workload.lane)
        with self._lock:
            del self._workloads[workload.lane]

    def stop(self) -> None:
        """End the threads and wait, but not for long, until each has answered its batch."""
        self._stopping.set()
        self._watch_sooner.set()
        self.turns.close()
        give_up_at = time.monotonic() + STOP_PATIENCE_S
        for thread in list(self._threads):
            thread.join(max(0.0, give_up_at - time.monotonic()))

    def replace_hung(self) -> None:
        """Give up each run that takes longer than it may: answer its callers, and replace its thread."""
        now = self._clock()
        with self._lock:
            overdue = {
                thread: run for thread, run in self._runs.items() if now - run.started_at > run.workload.max_run_s
            }
            for thread, run in overdue.items():
                del self._runs[thread]  # its result will be thrown away
                self._threads.discard(thread)
                run.workload.hangs(thread)
                run.workload.count(works=False)
            self._report_changes()
        for run in overdue.values():
            self._answer_hung(run)
        self._replace_missing()

    def _answer_hung(self, run: _Run) -> None:
        workload, batch = run.workload, run.turn.batch
        self.turns.end(run.turn, timed=False)
        texts = 0 if batch is None else len(batch.payloads)
        logger.error("a run of %d texts on model %s hangs: over %g s", texts, workload.name, workload.max_run_s)
        if batch is not None:
            failed = [workload.failure("the run hung")] * (texts - len(run.results))
            batch.answer([*run.results, *failed], timed=False)
        if not workload.live:
            logger.critical("%d runs of model %s hang; restart the server", len(workload.hung), workload.name)

    def _watch(self) -> None:
        while True:
            self._watch_sooner.wait(self._watch_interval_s)
            self._watch_sooner.clear()
            if self._stopping.is_set():
                return
            self.replace_hung()

    @property
    def _watch_interval_s(self) -> float:
        with self._lock:
            limits_s = [workload.max_run_s for workload in self._workloads.values()]
        return min([LONGEST_WATCH_S, *limits_s]) / WATCHES_PER_RUN

    def _replace_missing(self) -> None:
        """Start threads until there are `count`."""
        with self._lock:
            while self.alive < self.count and not self._stopping.is_set():
                thread = threading.Thread(target=self._run_thread, name="runner", daemon=True)
                try:
                    thread.start()
                except RuntimeError as error:  # the system has no thread left; the watch tries again
                    logger.error("a runner cannot be started: %s", error)
                    break
                self._threads.add(thread)
            self._report_changes()

    def _run_thread(self) -> None:
        """Work until the pool stops, the thread dies or its run is given up; then let it be replaced."""
        thread = threading.current_thread()
        given_up: AnyWorkload | None = None
        try:
            while self._take_and_run():  # the thread keeps nothing of a batch while it waits for the next
                pass
        except _GivenUpError as error:
            given_up = error.workload
            logger.warning("a run of model %s that was given up has ended", given_up.name)
        except BaseException:
            logger.exception("a runner died and is replaced")
        with self._lock:
            died = thread in self._threads
            self._threads.discard(thread)
            if given_up is not None:
                given_up.returned(thread)
            self._deaths_in_a_row += died
            self._report_changes()
            delayed = died and self._deaths_in_a_row > 1
        if delayed:
            self._stopping.wait(RESTART_DELAY_S)
        self._replace_missing()

    def _take_and_run(self) -> bool:
        """Take a turn and use it; return False when there will be no other."""
        turn = self.turns.take()
        if turn is None:
            return False
        timed = False
        try:
            workload = self._workloads.get(turn.lane)
            if workload is None:  # its model was stopped meanwhile, and every caller answered
                return True
            if turn.batch is None:
                self._try_model(workload, turn)
            else:
                timed = self._run_batch(workload, turn, turn.batch)
        finally:
            self.turns.end(turn, timed)
        return True

    def _run_batch(self, workload: AnyWorkload, turn: Turn, batch: Batch[Any, Any, Any]) -> bool:
        """Run a batch, answer it and return True; if it fails, run it again row by row, so that only bad rows fail."""
        payloads = batch.payloads
        results, works = self._attempt(workload, turn, payloads)
        if works:
            batch.answer(results)
            if workload.failures_in_a_row or self._deaths_in_a_row:
                self._count_run(workload, works)
            return True
        if len(payloads) > 1:
            rows: list[Any] = []
            for payload in payloads:
                row, row_works = self._attempt(workload, turn, [payload], rows)
                rows += row
                works |= row_works
            results = rows
        self._count_run(workload, works)
        batch.answer(results, timed=False)
        return False

    def _attempt(
        self, workload: AnyWorkload, turn: Turn, payloads: Sequence[Any], earlier: Results = ()
    ) -> tuple[Results, bool]:
        """Return results and True, or when the run raised anything, failures and False; raises _GivenUpError."""
        run = self._begin(workload, turn, earlier)
        works = True
        try:
            results = workload.run(payloads)
            if len(results) != len(payloads):
                raise InferenceError(f"{len(results)} results for {len(payloads)} texts")
        except BaseException as error:
            logger.exception("a batch of %d texts failed on model %s", len(payloads), workload.name)
            results, works = [workload.failure(repr(error))] * len(payloads), False
        self._end(run)
        return results, works

    def _try_model(self, workload: AnyWorkload, turn: Turn) -> None:
        """Make a trial run; raises _GivenUpError."""
        run = self._begin(workload, turn)
        works = True
        try:
            workload.probe()
        except BaseException as error:
            logger.error("model %s still fails: %r", workload.name, error)
            works = False
        self._end(run)
        if works:
            logger.info("model %s works again", workload.name)
        self._count_run(workload, works)

    def _begin(self, workload: AnyWorkload, turn: Turn, results: Results = ()) -> _Run:
        run = _Run(workload, turn, self._clock(), results)
        with self._lock:
            self._runs[threading.current_thread()] = run
        return run

    def _end(self, run: _Run) -> None:
        """Stop the watch over this thread's run; raises _GivenUpError when it was given up as hung."""
        with self._lock:
            if self._runs.pop(threading.current_thread(), None) is None:
                raise _GivenUpError(run.workload)

    def _count_run(self, workload: AnyWorkload, works: bool) -> None:
        with self._lock:
            workload.count(works)
            if works:
                self._deaths_in_a_row = 0
            self._report_changes()

    def _report_changes(self) -> None:
        """Report the health of each model where it changed; called with the lock held."""
        for workload in self._workloads.values():
            healthy = self.healthy(workload)
            if healthy != workload.reported:
                workload.reported = healthy
                workload.report(healthy)
