"""Starts contenders, checks their answers, lets one run while the others are stopped, and puts load on it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.serving import processes
from benchmarks.serving.client import MARK, Outcome, Request, Stream, ask, drive, encode_request
from benchmarks.serving.contenders import MODULES_FOLDER, Contender
from benchmarks.serving.graphs import Graph
from benchmarks.serving.texts import shuffled

START_S = 180.0
STOP_S = 20.0


class Server:
    """A contender that serves a graph; stopped by SIGSTOP whenever it is not measured."""

    def __init__(self, contender: Contender, graph: Graph, logs: Path) -> None:
        self.contender = contender
        self.graph = graph
        self.name = f"{contender.name} ({graph.key})"
        self.port = _free_port()
        self.log = logs / f"{contender.name}-{graph.key}.log"
        self._marks_per_text = 0
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                contender.command(graph, self.port),
                cwd=MODULES_FOLDER,
                env={**os.environ, **contender.environment},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE if contender.talks else log,
                stderr=log,
            )

    def wait_until_ready(self) -> None:
        """Wait for a right answer, then stop the processes; raises SystemExit with the log when none comes."""
        request = encode_request(self.contender.path, self.contender.body("a good film"))
        give_up = time.monotonic() + START_S
        while time.monotonic() < give_up and self.process.poll() is None:
            try:
                is_ok, body = ask(self.port, request)
            except OSError:
                is_ok = False
            if is_ok:
                self._marks_per_text = body.count(MARK)
                self.pause()
                return
            time.sleep(0.2)
        raise SystemExit(f"{self.name} did not start:\n{self.log.read_text(errors='replace')[-2000:]}")

    def check(self, texts: Sequence[str], labels: Sequence[str]) -> None:
        """Hold the server to the labels that the graph gives; raises SystemExit."""
        self.resume()
        for text, expected in zip(texts, labels, strict=True):
            is_ok, body = ask(self.port, encode_request(self.contender.path, self.contender.body(text)))
            given = self.contender.labels(json.loads(body)) if is_ok else []
            if given != [expected]:
                raise SystemExit(
                    f"{self.name} answered {given or body!r}, not {expected!r}, to a text that all are asked"
                )
        self.pause()

    def stream(self, connections: int, **inputs: Sequence[str | list[str]]) -> Stream:
        """Return a stream that sends inputs of one or several kinds, given by name, in a fixed random order."""
        requests = [
            Request(
                encode_request(self.contender.path, self.contender.body(value)),
                kind,
                self._marks_per_text * (len(value) if isinstance(value, list) else 1),
            )
            for kind, values in inputs.items()
            for value in values
        ]
        return Stream(connections, shuffled(requests))

    def drive(self, streams: Sequence[Stream], seconds: float, warm_up_s: float) -> Outcome:
        """Put load on the server, alone."""
        self.resume()
        try:
            return drive(self.port, streams, seconds, warm_up_s, lambda: processes.cpu_s(self.process.pid))
        finally:
            self.pause()

    def tell(self) -> dict[str, float]:
        """Return the counters of a timed service, which must be running."""
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(b"\n")
        stdin.flush()
        counters: dict[str, float] = json.loads(stdout.readline())
        return counters

    def peak_mib(self) -> float:
        """Return the peak memory of all its processes."""
        return processes.peak_mib(self.process.pid)

    def pause(self) -> None:
        """Take the CPU away from every process of the server."""
        processes.send_signal(self.process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Give it back."""
        processes.send_signal(self.process.pid, signal.SIGCONT)

    def stop(self) -> None:
        """End every process of the server."""
        family = processes.tree(self.process.pid)
        self.resume()
        self.process.terminate()
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for pid in family[1:]:
            processes.send_signal(pid, signal.SIGKILL)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
