"""What runners do for one model, and whether it works."""

from collections.abc import Callable, Sequence
from threading import Thread
from typing import Generic

from ladabert_serve.scheduling.ticket import Payload, Result
from ladabert_serve.scheduling.turns import Lane

FAILURES_UNTIL_UNHEALTHY = 3  # whole batches in a row
PROBE_INTERVAL_S = 1.0  # between trial runs of a model that fails
MAX_HUNG_RUNS = 16  # of one model at the same time; beyond it no further run of the model begins


class Workload(Generic[Payload, Result]):
    """The runs of one model; the pool's lock guards what changes.

    `run` gets a batch's payloads and returns a result, or an error, for each. When it raises, the batch is run again
    row by row, and the callers of the rows that fail again get `failure(cause)`. A run that takes longer than
    `max_run_s` fails, too. `report` gets each change of the model's health. While the model fails, `probe` is tried as
    well, so that the model recovers even when nobody sends requests.
    """

    def __init__(
        self,
        name: str,
        lane: Lane,
        run: Callable[[Sequence[Payload]], Sequence[Result | Exception]],
        probe: Callable[[], None],
        failure: Callable[[str], Exception],
        report: Callable[[bool], None],
        max_run_s: float,
    ) -> None:
        self.name = name
        self.lane = lane
        self.run = run
        self.probe = probe
        self.failure = failure
        self.report = report
        self.max_run_s = max_run_s
        self.hung: set[Thread] = set()  # given up, still computing
        self.failures_in_a_row = 0
        self.reported = False

    @property
    def failing(self) -> bool:
        """Whether the last runs all failed."""
        return self.failures_in_a_row >= FAILURES_UNTIL_UNHEALTHY

    @property
    def live(self) -> bool:
        """Whether further runs may begin; not once too many hang."""
        return len(self.hung) <= MAX_HUNG_RUNS

    def count(self, works: bool) -> None:
        """Count a run in which every text failed, or one that worked; while the model fails, trial runs follow."""
        self.failures_in_a_row = 0 if works else self.failures_in_a_row + 1
        self.lane.try_after(PROBE_INTERVAL_S if self.failing else None)

    def hangs(self, thread: Thread) -> None:
        """Note that a run was given up."""
        self.hung.add(thread)
        self.lane.suspend(not self.live)

    def returned(self, thread: Thread) -> None:
        """Note that a thread has ended, whose run may have been given up."""
        if thread in self.hung:
            self.hung.remove(thread)
            self.lane.suspend(not self.live)
