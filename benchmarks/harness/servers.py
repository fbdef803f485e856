"""Servers under test: started on a free port, watched and paused with all their descendants, and always ended."""

import asyncio
import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGCONT, SIGSTOP, SIGTERM, Signals
from typing import Any

import psutil

from benchmarks.harness.client import Connection, ask, get
from benchmarks.harness.results import REPOSITORY

START_S = 180.0
STOP_S = 30.0
READY = get("/health/ready")


class StartFailedError(Exception):
    """The server did not come up; the message is the end of its log."""


class Server:
    """A process with its descendants; with `talks` it answers lines on its standard input."""

    def __init__(
        self, name: str, command: Sequence[str], port: int, log: Path, environment: Mapping[str, str], *, talks: bool
    ) -> None:
        self.name = name
        self.port = port
        self.ready_s = 0.0  # from the start of the process to its first answer
        self._log = log
        self._began = time.perf_counter()
        with log.open("wb") as file:
            pipes = (subprocess.PIPE, subprocess.PIPE) if talks else (subprocess.DEVNULL, file)
            self.process = psutil.Popen(
                command, cwd=REPOSITORY, env=environment, stdin=pipes[0], stdout=pipes[1], stderr=file
            )

    @property
    def log(self) -> str:
        """What it wrote so far."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    @property
    def family(self) -> list[psutil.Process]:
        """The process and its living descendants, parents first."""
        with contextlib.suppress(psutil.NoSuchProcess):
            return [self.process, *self.process.children(recursive=True)]
        return [self.process]

    @property
    def workers(self) -> list[psutil.Process]:
        """Its living worker processes; the process itself when it has none."""
        return [one for one in self.family[1:] if "spawn_main" in " ".join(_of(one.cmdline, []))] or [self.process]

    def cpu_s(self) -> float:
        """Return the seconds of CPU that its living processes have used, in user and kernel."""
        return sum(sum(_of(one.cpu_times, (0.0, 0.0))[:2]) for one in self.family)

    def rss_bytes(self) -> int:
        """Return the resident memory of all its processes."""
        return sum(getattr(_of(one.memory_info, None), "rss", 0) for one in self.family)

    def peak_mib(self) -> float:
        """Return the sum of its processes' peak resident sizes; pages that they share count for each of them."""
        statuses = [_of(Path(f"/proc/{one.pid}/status").read_text, "") for one in self.family]
        return sum(peak_kib(status) for status in statuses) / 1024

    def threads(self) -> int:
        """Return the threads of all its processes."""
        return sum(_of(one.num_threads, 0) for one in self.family)

    def descriptors(self) -> int:
        """Return the open file descriptors of all its processes."""
        return sum(_of(one.num_fds, 0) for one in self.family)

    def callers_of(self, worker: psutil.Process) -> set[int]:
        """Return the callers' ports of the connections that a worker holds."""
        held = _of(lambda: worker.net_connections("tcp"), [])
        return {one.raddr.port for one in held if one.status == psutil.CONN_ESTABLISHED and one.laddr.port == self.port}

    def signal(self, number: Signals) -> None:
        """Send a signal to every process, parents first, so that none restarts a child."""
        for one in self.family:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.send_signal(number)

    def pause(self) -> None:
        """Take the CPU away from all its processes."""
        self.signal(SIGSTOP)

    def resume(self) -> None:
        """Give it back."""
        self.signal(SIGCONT)

    def ask_counters(self) -> dict[str, float]:
        """Return the counters of a timed service, which must be running."""
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()
        lines = (line for line in self.process.stdout if line.startswith(b"{"))  # it also said where it listens
        counters: dict[str, float] = json.loads(next(lines))
        return counters

    async def wait_ready(self, request: bytes) -> None:
        """Wait until a request is answered 200; raises StartFailedError."""
        while self.process.poll() is None and time.perf_counter() - self._began < START_S:
            with contextlib.suppress(OSError):
                if (await ask(self.port, request)).status == 200:
                    self.ready_s = time.perf_counter() - self._began
                    return
            await asyncio.sleep(0.01)
        raise StartFailedError(f"{self.name} did not start:\n{self.log[-2000:]}")

    async def wait_for_workers(self, count: int) -> None:
        """Wait until `count` workers have each taken a connection."""
        found = 0
        while found != count:
            probes = [await Connection.open(self.port) for _ in range(8)]
            await asyncio.sleep(0.05)
            found = sum(bool(self.callers_of(worker)) for worker in self.workers)
            for probe in probes:
                probe.close()

    async def stop(self, number: Signals = SIGTERM) -> tuple[int, float]:
        """Send a signal to the parent; return the exit code and the seconds that it took. Raises TimeoutError."""
        began = time.perf_counter()
        self.process.send_signal(number)
        code = await asyncio.wait_for(asyncio.to_thread(self.process.wait), STOP_S)
        return code, time.perf_counter() - began

    async def end(self) -> None:
        """End all its processes, politely first."""
        family = self.family
        self.resume()
        with contextlib.suppress(psutil.NoSuchProcess, TimeoutError):
            await self.stop()
        for one in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


@contextlib.asynccontextmanager
async def started(
    name: str,
    command: Callable[[int], Sequence[str]],
    request: bytes,
    environment: Mapping[str, str] | None = None,
    *,
    talks: bool = False,
) -> AsyncIterator[Server]:
    """Start a server on a free port, wait until it answers `request`, and end it at the exit.

    `command` gets the port; `environment` (unset: this process's own) is all that it sees.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    with tempfile.TemporaryDirectory(prefix="ladabert-benchmark-") as folder:
        variables = dict(os.environ) if environment is None else environment
        server = Server(name, command(port), port, Path(folder) / "log", variables, talks=talks)
        try:
            await server.wait_ready(request)
            yield server
        finally:
            await server.end()


@contextlib.asynccontextmanager
async def our_service(
    models: Path, settings: Mapping[str, object] | None = None, workers: int = 1, module: str = "ladabert_serve"
) -> AsyncIterator[Server]:
    """Start our service and wait until every worker answers.

    `settings` are the server's own, by their names; what the environment says about them is left out. `module` is what
    Python runs, with its first argument where it takes one.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LADABERT_")}
    environment |= {f"LADABERT_{name.upper()}": str(value) for name, value in (settings or {}).items()}

    def command(port: int) -> list[str]:
        options = ["--models", str(models.absolute()), "--port", str(port), "--workers", str(workers)]
        return [sys.executable, "-m", *module.split(), *options, "--provider", "cpu"]

    async with started(module, command, READY, environment) as server:
        if workers > 1:
            await server.wait_for_workers(workers)
        yield server


@dataclass(slots=True)
class Samples:
    """A server's memory, threads and descriptors, one value per look, in order."""

    rss_bytes: list[int] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)

    async def take(self, server: Server, interval_s: float) -> None:
        """Look again and again."""
        while True:
            self.rss_bytes.append(server.rss_bytes())
            self.threads.append(server.threads())
            self.descriptors.append(server.descriptors())
            await asyncio.sleep(interval_s)


def peak_kib(status: str) -> int:
    """Return VmHWM of a /proc/PID/status file, which psutil does not read; 0 where a process has none."""
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    return int(found[1]) if found else 0


def _of(read: Callable[[], Any], gone: Any) -> Any:
    """Return what is read of a process, or `gone` when it has ended."""
    try:
        return read()
    except (psutil.Error, OSError):
        return gone
