"""CPU time, peak memory and pausing of a process together with all its descendants, from /proc."""

from __future__ import annotations

import contextlib
import os
import re
import signal
from pathlib import Path

PROC = Path("/proc")
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def tree(root: int) -> list[int]:
    """Return the process and its descendants, parents first."""
    found = [root]
    for pid in found:
        for children in (PROC / str(pid)).glob("task/*/children"):
            with contextlib.suppress(OSError):
                found += [int(child) for child in children.read_text().split()]
    return found


def cpu_s(root: int) -> float:
    """Return the seconds of CPU that the tree's living processes have used, in user and kernel."""
    ticks = 0
    for pid in tree(root):
        with contextlib.suppress(OSError):
            ticks += cpu_ticks((PROC / str(pid) / "stat").read_text())
    return ticks / TICKS_PER_S


def cpu_ticks(stat: str) -> int:
    """Return utime plus stime of a /proc/PID/stat line; the command in it may hold spaces and brackets."""
    fields = stat.rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def peak_mib(root: int) -> float:
    """Return the sum of the tree's peak resident sizes; pages that processes share count for each of them."""
    total = 0
    for pid in tree(root):
        with contextlib.suppress(OSError):
            total += peak_kib((PROC / str(pid) / "status").read_text())
    return total / 1024


def peak_kib(status: str) -> int:
    """Return VmHWM of a /proc/PID/status file, or 0 where a process has none."""
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    return int(found[1]) if found else 0


def send_signal(root: int, number: signal.Signals) -> None:
    """Send a signal to the tree, parents first, so that none restarts a child."""
    for pid in tree(root):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
