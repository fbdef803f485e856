"""Asks for /health/live and a short text all the time, as other callers would, in a process of its own.

`python -m tests.attacks.harness.prober PORT` says `ready` after the first answers, asks until its stdin is closed, and
then prints JSON: the answers, their number, and the longest wait in milliseconds.
"""

import contextlib
import http.client
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field

PERIOD_S = 0.02
PATIENCE_S = 60.0
SHORT_TEXT = b'{"inputs": "a good film"}'


@dataclass
class Waits:
    """How one kind of caller fared."""

    answers: dict[str, int] = field(default_factory=dict)
    worst_ms: float = 0.0

    def count(self, answer: str, wait_s: float) -> None:
        """Count an answer."""
        self.answers[answer] = self.answers.get(answer, 0) + 1
        self.worst_ms = max(self.worst_ms, wait_s * 1000)


class Probe(threading.Thread):
    """Asks one thing every PERIOD_S: a text on a connection that it keeps, liveness on a new one each time."""

    def __init__(self, port: int, text: bool) -> None:
        super().__init__(daemon=True)
        self.waits = Waits()
        self.asked_once = threading.Event()
        self.done = threading.Event()
        self._asked_at: float | None = None
        self._port = port
        self._text = text
        self._connection: http.client.HTTPConnection | None = None

    def run(self) -> None:
        """Ask until done."""
        while not self.done.is_set():
            self._asked_at = asked_at = time.monotonic()
            answer = self._ask()
            self._asked_at = None
            self.waits.count(answer, time.monotonic() - asked_at)
            self.asked_once.set()
            self.done.wait(PERIOD_S)

    def finish(self) -> Waits:
        """Stop; a question that is still open counts with its wait until now."""
        self.done.set()
        self.join(1.0)
        asked_at = self._asked_at
        if asked_at is not None:
            self.waits.count("silence", time.monotonic() - asked_at)
        return self.waits

    def _ask(self) -> str:
        if self._connection is None:
            self._connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE_S)
        try:
            if self._text:
                self._connection.request("POST", "/classify", SHORT_TEXT, {"content-type": "application/json"})
            else:
                self._connection.request("GET", "/health/live", headers={"connection": "close"})
            response = self._connection.getresponse()
            response.read()
        except (OSError, http.client.HTTPException) as error:
            self._forget()
            return type(error).__name__
        if response.will_close:
            self._forget()
        return str(response.status)

    def _forget(self) -> None:
        assert self._connection is not None
        self._connection.close()
        self._connection = None


class Probing:
    """A prober at work; `waits` holds what it saw, by kind, once it is done."""

    def __init__(self) -> None:
        self.waits: dict[str, Waits] = {}


@contextlib.contextmanager
def probing(port: int) -> Iterator[Probing]:
    """Have another process probe a server."""
    command = [sys.executable, "-m", "tests.attacks.harness.prober", str(port)]
    result = Probing()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            assert process.stdout.readline() == b"ready\n"
            yield result
        finally:
            process.stdin.close()
            for kind, seen in json.loads(process.stdout.read()).items():
                result.waits[kind] = Waits(**seen)


def main() -> None:
    """Probe until stdin is closed."""
    probes = {"live": Probe(int(sys.argv[1]), text=False), "text": Probe(int(sys.argv[1]), text=True)}
    for probe in probes.values():
        probe.start()
    for probe in probes.values():
        probe.asked_once.wait(PATIENCE_S)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.read()
    sys.stdout.write(json.dumps({kind: asdict(probe.finish()) for kind, probe in probes.items()}))


if __name__ == "__main__":
    main()
