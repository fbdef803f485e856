"""Where figures come from: the commit and the machine."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path


def commit() -> str:
    """The commit of the working tree, and `+` where it holds more."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], capture_output=True, text=True, check=False).stdout.strip()

    found = git("rev-parse", "--short", "HEAD")
    return (found or "unknown") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")


def machine_name() -> str:
    """The processor's name and number of cores."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {len(names) or 'unknown number of'} cores"
