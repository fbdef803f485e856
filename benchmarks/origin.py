"""Which commit figures come from; the machine is `compression.machine`'s."""

from __future__ import annotations

import subprocess


def commit() -> str:
    """The commit of the working tree, and `+` where it holds more."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], capture_output=True, text=True, check=False).stdout.strip()

    found = git("rev-parse", "--short", "HEAD")
    return (found or "unknown") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
