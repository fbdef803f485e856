"""CPU time and memory of a worker, as the system counts them."""

import os
from pathlib import Path
from typing import NamedTuple

PROCESS = "process"  # a row: the id of the process that counts there

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
USER_TICKS, SYSTEM_TICKS = 11, 12  # fields of /proc/ID/stat after the name, which ends with the last parenthesis


class Usage(NamedTuple):
    """What one process has used: CPU time since its start, and memory now."""

    cpu_s: float
    resident_bytes: int


def usage_of(process: int) -> Usage | None:
    """Return what a process uses, None where it has ended or the system does not say."""
    folder = Path("/proc") / str(process)
    try:
        fields = (folder / "stat").read_text().rpartition(")")[2].split()
        resident_pages = int((folder / "statm").read_text().split()[1])
        return Usage((int(fields[USER_TICKS]) + int(fields[SYSTEM_TICKS])) / TICKS_PER_S, resident_pages * PAGE_BYTES)
    except (OSError, ValueError, IndexError):
        return None
