"""A server process on a free loopback port, its memory, its log and its metrics."""

import contextlib
import http.client
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

MODULE = "ladabert_serve"
REPOSITORY = Path(__file__).resolve().parents[3]
ADDRESS_SPACE_BYTES = 6 << 30  # a server that takes more dies, not the machine
START_S = 60.0
POLL_S = 0.01
PAGE_MIB = resource.getpagesize() / (1 << 20)


@dataclass(frozen=True)
class Models:
    """A models folder: its default model takes single texts, `pair` names one that compares two."""

    folder: Path
    pair: str


class Server:
    """A running server."""

    def __init__(self, process: "subprocess.Popen[bytes]", port: int, log: Path, models: Models) -> None:
        self.process = process
        self.port = port
        self.models = models
        self._log = log

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self.process.poll() is None

    @property
    def log(self) -> str:
        """What it wrote to stderr."""
        return self._log.read_text(errors="replace")

    def children(self) -> list[int]:
        """Its child processes."""
        return _children(self.process.pid)

    def memory_mib(self) -> float:
        """Resident memory of the process and its children; 0 once it ended."""
        return sum(_resident_mib(pid) for pid in [self.process.pid, *self.children()])

    def descriptors(self) -> int:
        """Open files and connections of the process and its children."""
        return sum(_descriptors(pid) for pid in [self.process.pid, *self.children()])

    def get(self, path: str, timeout_s: float = 30.0) -> tuple[int, bytes]:
        """GET a path on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)
        with contextlib.closing(connection):
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()

    def metrics(self) -> dict[str, float]:
        """Every series and its value."""
        lines = self.get("/metrics")[1].decode().splitlines()
        parts = [line.rpartition(" ") for line in lines if not line.startswith("#")]
        return {series: float(value) for series, _, value in parts}

    def signal(self, number: int = signal.SIGTERM) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def wait(self, timeout_s: float) -> int | None:
        """Return the exit code, or None when it has not ended in time."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.process.wait(timeout_s)
        return None


def _resident_mib(pid: int) -> float:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_MIB
    except (OSError, IndexError):
        return 0.0


def _descriptors(pid: int) -> int:
    try:
        return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return 0


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


@contextlib.contextmanager
def started(models: Models, *options: str) -> Iterator[Server]:
    """Start a server and wait until it says that it listens; raises RuntimeError with its log when it ends first."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LADABERT_")}
    command = [sys.executable, "-m", MODULE, "--models", str(models.folder), "--port", "0", "--provider", "cpu"]
    with tempfile.TemporaryDirectory() as folder:
        output, log = Path(folder) / "stdout", Path(folder) / "stderr"
        with output.open("wb") as stdout, log.open("wb") as stderr:
            process = subprocess.Popen(
                [*command, *options],
                cwd=REPOSITORY,
                env={**environment, "ORT_DISABLE_TELEMETRY": "1"},
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )
        try:
            resource.prlimit(process.pid, resource.RLIMIT_AS, (ADDRESS_SPACE_BYTES, ADDRESS_SPACE_BYTES))
            wait_until(lambda: "try: " in output.read_text() or process.poll() is not None, START_S)
            found = re.search(r"http://127\.0\.0\.1:(\d+)", output.read_text())
            if found is None:
                raise RuntimeError(f"the server did not start: {log.read_text()[-500:]}")
            yield Server(process, int(found[1]), log, models)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait_until(holds: Callable[[], bool], timeout_s: float) -> bool:
    """Wait for something that nobody announces; return whether it came in time."""
    end = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > end:
            return False
        threading.Event().wait(POLL_S)
    return True
