"""A `python -m service` process under test: started, looked at through /proc, and always ended."""

import asyncio
import contextlib
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

START_S = 60.0
STOP_S = 60.0
ESTABLISHED = "01"
REPOSITORY = Path(__file__).parents[2]


class StartFailedError(Exception):
    """The server did not come up; the message is its log."""


class ServerProcess:
    """A running server and its worker processes, if it has any."""

    def __init__(self, process: asyncio.subprocess.Process, port: int, log: Path) -> None:
        self.process = process
        self.port = port
        self._log = log

    @property
    def log(self) -> str:
        """What it wrote to stderr so far."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    @property
    def workers(self) -> list[int]:
        """The live worker processes; the process itself when it has none."""
        children = [pid for pid in _children(self.process.pid) if "spawn_main" in _command(pid)]
        return children or [self.process.pid]

    def rss_bytes(self) -> int:
        """Resident memory of all its processes."""
        return sum(_status(pid, "VmRSS") * 1024 for pid in self._pids())

    def threads(self) -> int:
        """Threads of all its processes."""
        return sum(_status(pid, "Threads") for pid in self._pids())

    def descriptors(self) -> int:
        """Open file descriptors of all its processes."""
        return sum(len(_descriptors(pid)) for pid in self._pids())

    def callers_of(self, worker: int) -> set[int]:
        """The callers' ports of the connections that a worker holds."""
        with contextlib.suppress(OSError):
            inodes = {found[1] for link in _descriptors(worker) if (found := re.match(r"socket:\[(\d+)\]", link))}
            rows = Path(f"/proc/{worker}/net/tcp").read_text().splitlines()[1:]
            ours = [row.split() for row in rows]
            return {
                int(row[2].rpartition(":")[2], 16)
                for row in ours
                if row[3] == ESTABLISHED and row[9] in inodes and int(row[1].rpartition(":")[2], 16) == self.port
            }
        return set()

    async def stop(self, number: int = signal.SIGTERM) -> tuple[int, float]:
        """Send a signal to the parent; return the exit code and the seconds that it took."""
        started = time.perf_counter()
        self.process.send_signal(number)
        code = await asyncio.wait_for(self.process.wait(), STOP_S)
        return code, time.perf_counter() - started

    def _pids(self) -> list[int]:
        return [self.process.pid, *_children(self.process.pid)]


@contextlib.asynccontextmanager
async def started(
    models: Path, settings: Mapping[str, object], workers: int = 1, module: str = "service"
) -> AsyncIterator[ServerProcess]:
    """Start a server on a free port, wait until every worker answers, and end it at the exit.

    `settings` are the server's own, by their names; what the environment says about them is left out.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LADABERT_")}
    environment |= {f"LADABERT_{name.upper()}": str(value) for name, value in settings.items()}
    options = ["--models", str(models.absolute()), "--port", "0", "--provider", "cpu", "--workers", str(workers)]
    with tempfile.TemporaryDirectory(prefix="ladabert-fault-") as folder:
        log = Path(folder) / "stderr"
        with log.open("wb") as stderr:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", module, *options,
                cwd=REPOSITORY, env=environment, stdout=asyncio.subprocess.PIPE, stderr=stderr,
            )  # fmt: skip
        children: list[int] = []
        try:
            async with asyncio.timeout(START_S):
                port = await _announced_port(process)
                if port is None:
                    raise StartFailedError(log.read_text(encoding="utf-8", errors="replace"))
                server = ServerProcess(process, port, log)
                await wait_for_workers(server, workers)
            yield server
        finally:
            with contextlib.suppress(ProcessLookupError):
                children = _children(process.pid)
                process.kill()
            await process.wait()
            for pid in children:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


async def wait_for_workers(server: ServerProcess, count: int) -> None:
    """Wait until `count` workers have each taken a connection."""
    while True:
        probes = []
        try:
            for _ in range(8):
                _, probe = await asyncio.open_connection("127.0.0.1", server.port)
                probes.append(probe)
            await asyncio.sleep(0.05)
            if sum(bool(server.callers_of(worker)) for worker in server.workers) == count:
                return
        finally:
            for probe in probes:
                probe.close()


async def _announced_port(process: asyncio.subprocess.Process) -> int | None:
    """The port that the server says it listens on; None when it ended instead."""
    assert process.stdout is not None
    port = None
    async for line in process.stdout:
        found = re.search(rb"listening on http://[^:]+:(\d+)", line)
        if found:
            port = int(found[1])
        if line.startswith(b"try: "):
            return port
    return port


def _children(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += [int(child) for child in (task / "children").read_text().split()]
    return found


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def _status(pid: int, field: str) -> int:
    """A number of /proc/PID/status; 0 for a process that is gone."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1])
    return 0


def _descriptors(pid: int) -> list[str]:
    return list(_links(Path(f"/proc/{pid}/fd")))


def _links(folder: Path) -> Iterator[str]:
    with contextlib.suppress(OSError):
        for entry in folder.iterdir():
            with contextlib.suppress(OSError):
                yield str(entry.readlink())
