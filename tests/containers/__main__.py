"""Runs these tests where they can run, and says why where they cannot: `python -m tests.containers`.

As root they run in a network namespace of their own, so that no port can clash and nothing is reached from outside.
"""

import importlib.util
import os
import shutil
import subprocess
import sys

from tests.containers.engine import ENABLED, FOLDER, prepare

TOOLS = ("buildah", "podman", "promtool")


def problem() -> str:
    """Return what is missing, or nothing."""
    if missing := [tool for tool in TOOLS if shutil.which(tool) is None]:
        return f"no {', '.join(missing)} here"
    if importlib.util.find_spec("podman_compose") is None:
        return "no podman-compose here: pip install podman-compose"
    return prepare()


def main() -> int:
    """Return pytest's exit code, or 0 where these tests cannot run."""
    if reason := problem():
        sys.stdout.write(f"container tests: 0 passed, 0 failed, skipped: {reason}\n")
        return 0
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "0", "--durations", "9", str(FOLDER)]
    os.environ[ENABLED] = "1"
    if os.geteuid() == 0 and shutil.which("unshare"):
        command = ["unshare", "--net", "sh", "-c", 'ip link set lo up; exec "$@"', "sh", *command]
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
