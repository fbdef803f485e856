"""Runner threads: each takes a batch, runs it, answers it, and is replaced when it dies."""

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Generic

from service.batcher import Batch, Batcher, Payload, Result

logger = logging.getLogger(__name__)

FAILURES_UNTIL_UNHEALTHY = 3  # whole batches in a row
PROBE_INTERVAL_S = 1.0  # between trial runs of a model that fails
RESTART_DELAY_S = 1.0  # before a thread is replaced whose predecessor died without answering a batch


class RunnerPool(Generic[Payload, Result]):
    """`count` threads that run batches; `healthy` tells whether all live and the model works.

    `run` gets a batch's payloads and returns a result, or an error, for each; when it raises, every caller
    gets `failure()`. `report` is told each change of `healthy`. `probe` is a run of its own, tried while
    the model fails, so that it can recover even when nobody sends requests.
    """

    def __init__(
        self,
        name: str,
        batcher: Batcher[Payload, Result],
        run: Callable[[Sequence[Payload]], Sequence[Result | Exception]],
        probe: Callable[[], None],
        failure: Callable[[], Exception],
        report: Callable[[bool], None],
        count: int,
    ) -> None:
        self._name = name
        self._batcher = batcher
        self._run = run
        self._probe = probe
        self._failure = failure
        self._report = report
        self._reported = False
        self._count = count
        self._lock = threading.Lock()
        self._threads: set[threading.Thread] = set()
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
        """Start the threads."""
        for _ in range(self._count):
            self._spawn()

    def stop(self) -> None:
        """Close the batcher and wait until every thread has answered the batch in its hands."""
        self._stopping.set()
        self._batcher.close()
        for thread in list(self._threads):
            thread.join()

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
            self._threads.discard(threading.current_thread())
            self._deaths_in_a_row += 1
            self._report_change()
            again = self._deaths_in_a_row > 1
        if again:
            self._stopping.wait(RESTART_DELAY_S)
        if not self._stopping.is_set():
            self._spawn()

    def _work(self) -> None:
        while not self._batcher.closed:
            failing = self._failures_in_a_row >= FAILURES_UNTIL_UNHEALTHY
            batch = self._batcher.take(PROBE_INTERVAL_S if failing else None)
            if batch is not None:
                self._run_batch(batch)
            elif failing and not self._batcher.closed:
                self._try_again()

    def _run_batch(self, batch: Batch[Payload, Result]) -> None:
        try:
            batch.answer(self._run(batch.payloads))
        except Exception:
            with self._lock:
                self._failures_in_a_row += 1
                self._report_change()
            logger.exception("a batch of %d texts failed on model %s", len(batch.payloads), self._name)
        else:
            with self._lock:
                self._failures_in_a_row = 0
                self._deaths_in_a_row = 0
                self._report_change()
        finally:
            if not batch.answered:
                batch.fail(self._failure())

    def _try_again(self) -> None:
        try:
            self._probe()
        except Exception as error:
            logger.error("model %s still fails: %s", self._name, error)
        else:
            logger.info("model %s works again", self._name)
            with self._lock:
                self._failures_in_a_row = 0
                self._report_change()

    def _report_change(self) -> None:
        """Report `healthy` when it changed; called with the lock held."""
        if self.healthy != self._reported:
            self._reported = self.healthy
            self._report(self._reported)
