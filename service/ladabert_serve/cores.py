"""How many CPU cores this process may really use: affinity and the cgroup's quota, not the host's count."""

import contextlib
import os
from pathlib import Path


def available_cores(root: Path = Path("/"), affinity: int | None = None) -> int:
    """Return the whole cores this process may use, at least 1.

    A fractional quota is rounded down: a thread more than the quota pays for is throttled together with
    the event loop. `root` is where /proc and /sys are read and `affinity` what the scheduler allows; both
    are for tests.
    """
    cores = float(affinity if affinity is not None else len(os.sched_getaffinity(0)))
    for folder in _cgroup_folders(root):
        quota = _quota(folder)
        if quota is not None:
            cores = min(cores, quota)
    return max(1, int(cores))


def cores_per_worker(workers: int) -> int:
    """Return the whole cores that each of so many worker processes may use, at least 1."""
    return max(1, available_cores() // workers)


def _cgroup_folders(root: Path) -> list[Path]:
    """Return the folders that may limit this process: its own cgroup and each parent, in v2 and in v1."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    folders: list[Path] = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            mounts = [root / "sys/fs/cgroup"]
        elif "cpu" in controllers.split(","):
            mounts = [root / "sys/fs/cgroup" / controllers, root / "sys/fs/cgroup/cpu"]
        else:
            continue
        parts = [part for part in path.split("/") if part not in ("", "..")]
        for mount in mounts:
            folders += [mount.joinpath(*parts[:depth]) for depth in range(len(parts), -1, -1)]
    return folders


def _quota(folder: Path) -> float | None:
    """Return the cores that this cgroup folder grants, or None when it sets no limit."""
    with contextlib.suppress(OSError, ValueError, ZeroDivisionError):  # cgroup v1 has other files
        quota, period = (folder / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    try:
        quota_us = int((folder / "cpu.cfs_quota_us").read_text())
        period_us = int((folder / "cpu.cfs_period_us").read_text())
        return quota_us / period_us if quota_us > 0 else None
    except (OSError, ValueError, ZeroDivisionError):
        return None
