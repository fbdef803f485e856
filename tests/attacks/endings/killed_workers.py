"""A worker process is killed repeatedly.

Size: kills. Another takes its place each time, after a pause that grows, and nothing of a killed one stays.
"""

import os
import signal
from functools import partial
from pathlib import Path

from tests.attacks.harness.attack import Attack, Seen
from tests.attacks.harness.requests import get
from tests.attacks.harness.server import Server, started, wait_until
from tests.attacks.harness.wire import ask

BACK_S = 60.0
SWEPT_S = 10.0
SHARED_MEMORY = "/memfd:ladabert-metrics (deleted)"


def run(server: Server, size: int, seen: Seen) -> None:
    """Kill workers of a server of its own, and look for the descriptors that they leave to the others."""
    with started(server.models, "--workers", "2") as target:
        wait_until(lambda: len(_workers(target)) == 2, BACK_S)
        seen.count(ask(target.port, get("/metrics")))
        before = target.descriptors()
        for _ in range(size):
            workers = _workers(target)
            os.kill(min(workers), signal.SIGKILL)
            seen.claim("the worker is replaced", wait_until(partial(_replaced, target, workers), BACK_S))
            seen.count(ask(target.port, get("/metrics")))
        swept = wait_until(lambda: target.descriptors() <= before, SWEPT_S)
        seen.claim("no descriptor is left", swept, f"{target.descriptors()} of {before} before, after {size} kills")
        target.signal()
        code = target.wait(BACK_S)
        seen.claim("exit code 0", code == 0, code)


def _replaced(target: Server, workers: set[int]) -> bool:
    return bool(_workers(target) - workers)


def _workers(target: Server) -> set[int]:
    """The processes that serve: those that have the memory of the metrics."""
    return {pid for pid in target.children() if _shares_memory(pid)}


def _shares_memory(pid: int) -> bool:
    try:
        return SHARED_MEMORY in Path(f"/proc/{pid}/maps").read_text()
    except OSError:
        return False


ATTACK = Attack(run, short=1, full=8, answers=frozenset({"200"}), ends=True)
