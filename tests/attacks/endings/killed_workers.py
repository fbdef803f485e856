"""A worker is killed again and again.

Size: kills. Another takes its place each time, and no file of a killed one stays in the metrics' folder.
"""

import os
import re
import signal
from functools import partial
from pathlib import Path

from tests.attacks.harness.attack import Attack, Seen
from tests.attacks.harness.requests import get
from tests.attacks.harness.server import Server, started, wait_until
from tests.attacks.harness.wire import ask

BACK_S = 60.0
SWEPT_S = 2.0


def run(server: Server, size: int, seen: Seen) -> None:
    """Kill workers of a server of its own, and look for the files that they leave."""
    killed: set[int] = set()
    with started(server.models, "--workers", "2") as target:
        for _ in range(size):
            workers = _workers(target)
            killed.add(min(workers))
            os.kill(min(workers), signal.SIGKILL)
            seen.claim("the worker is replaced", wait_until(partial(_replaced, target, workers), BACK_S))
            seen.count(ask(target.port, get("/metrics")))
        swept = wait_until(lambda: not _left_by(killed, target), SWEPT_S)
        seen.claim(
            "no file of a killed worker is left", swept, f"{len(_left_by(killed, target))} files after {size} kills"
        )
        target.signal()
        code = target.wait(BACK_S)
        seen.claim("exit code 0", code == 0, code)


def _replaced(target: Server, workers: set[int]) -> bool:
    return bool(_workers(target) - workers)


def _workers(target: Server) -> set[int]:
    """The processes that serve: those that hold files of metrics."""
    return {pid for pid in target.children() if _files_of(pid)}


def _left_by(killed: set[int], target: Server) -> list[str]:
    """The files named after a killed worker, in the folder where the others keep theirs."""
    folders = {path.parent for pid in _workers(target) for path in _files_of(pid)}
    names = [path.name for folder in folders for path in folder.iterdir()]
    return [name for name in names if killed & {int(number) for number in re.findall(r"\d+", name)}]


def _files_of(pid: int) -> set[Path]:
    try:
        maps = Path(f"/proc/{pid}/maps").read_text().splitlines()
    except OSError:
        return set()
    return {Path(line.split(maxsplit=5)[5]) for line in maps if line.endswith(".db")}


ATTACK = Attack(run, short=1, full=12, answers=frozenset({"200"}), ends=True)
