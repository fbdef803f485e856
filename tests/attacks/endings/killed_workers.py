"""A worker is killed again and again.

Size: kills. Another takes its place each time, and no file of a killed one stays in the metrics' folder.
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


def run(server: Server, size: int, seen: Seen) -> None:
    """Kill workers of a server of its own, and count the files that they leave."""
    with started(server.models, "--workers", "2") as target:
        before = _metric_files(target)
        for _ in range(size):
            workers = _workers(target)
            os.kill(min(workers), signal.SIGKILL)
            seen.claim("the worker is replaced", wait_until(partial(_replaced, target, workers), BACK_S))
            seen.count(ask(target.port, get("/metrics")))
        after = _metric_files(target)
        seen.claim("no file of a killed worker is left", 0 < len(after) <= len(before), f"{len(before)} → {len(after)}")
        target.signal()
        code = target.wait(BACK_S)
        seen.claim("exit code 0", code == 0, code)


def _replaced(target: Server, workers: set[int]) -> bool:
    return bool(_workers(target) - workers)


def _workers(target: Server) -> set[int]:
    """The processes that serve: those that hold files of metrics."""
    return {pid for pid in target.children() if _files_of(pid)}


def _metric_files(target: Server) -> set[Path]:
    """Every file in the folder where a worker keeps its metrics."""
    folders = {path.parent for pid in target.children() for path in _files_of(pid)}
    return {path for folder in folders for path in folder.iterdir()}


def _files_of(pid: int) -> set[Path]:
    try:
        maps = Path(f"/proc/{pid}/maps").read_text().splitlines()
    except OSError:
        return set()
    return {Path(line.split(maxsplit=5)[5]) for line in maps if line.endswith(".db")}


ATTACK = Attack(run, short=2, full=12, answers=frozenset({"200"}), ends=True)
