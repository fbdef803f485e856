"""Runs these tests where they can run, and says why where they cannot: `make test-containers`.

As root they run in a network namespace of their own, so that no port can clash and nothing is reached from outside.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree

from tests.containers.engine import ENABLED, FOLDER, prepare

TOOLS = ("buildah", "podman")


def problem() -> str:
    """Return what is missing, or nothing."""
    if missing := [tool for tool in TOOLS if shutil.which(tool) is None]:
        return f"no {' and no '.join(missing)} here"
    if importlib.util.find_spec("podman_compose") is None:
        return "no podman-compose here: pip install podman-compose"
    return prepare()


def summary(report: Path) -> str:
    """Return how many of the tests in a JUnit report passed, failed and were skipped."""
    suite = ElementTree.parse(report).getroot()[0]
    tests, skipped = int(suite.attrib["tests"]), int(suite.attrib["skipped"])
    failed = int(suite.attrib["failures"]) + int(suite.attrib["errors"])
    return f"{tests - failed - skipped} passed, {failed} failed, {skipped} skipped"


def main() -> int:
    """Return pytest's exit code, or 0 where these tests cannot run."""
    if reason := problem():
        print(f"container tests skipped: {reason}")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "0", "--durations", "9"]
        command += ["--junit-xml", str(report), str(FOLDER)]
        if os.geteuid() == 0 and shutil.which("unshare"):
            command = ["unshare", "--net", "sh", "-c", 'ip link set lo up; exec "$@"', "sh", *command]
        code = subprocess.run(command, env={**os.environ, ENABLED: "1"}, check=False).returncode
        print(summary(report))
    return code


if __name__ == "__main__":
    sys.exit(main())
