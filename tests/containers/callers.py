"""Callers that never stop to ask while containers come and go, and the monitors' answers."""

import contextlib
import http.client
import json
import threading
import urllib.parse
from collections import Counter
from types import TracebackType
from typing import Any

SERVICE, PROMETHEUS, ALERTMANAGER = 8000, 9090, 9093
BODY = json.dumps({"inputs": ["a warm and funny film", "an utter bore"]})


def get(port: int, path: str, host: str = "127.0.0.1") -> tuple[int, bytes]:
    """Return status and body, or status 0 where nobody listens."""
    connection = http.client.HTTPConnection(host, port, timeout=10)
    try:
        with contextlib.closing(connection):
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()
    except OSError:
        return 0, b""


def classify(body: str = BODY, model: str = "") -> int:
    """Return the status of one request."""
    connection = http.client.HTTPConnection("127.0.0.1", SERVICE, timeout=30)
    with contextlib.closing(connection):
        connection.request("POST", "/classify", body, {"content-type": "application/json"})
        return connection.getresponse().status


def query(expression: str) -> list[Any]:
    """Return the series that Prometheus finds for an expression now."""
    status, body = get(PROMETHEUS, f"/api/v1/query?{urllib.parse.urlencode({'query': expression})}")
    if status != 200:
        raise RuntimeError(f"{expression}: {body.decode()[:300]}")
    found: list[Any] = json.loads(body)["data"]["result"]
    return found


class Callers:
    """Threads that ask until they are told to stop, a pause apart: half keep their connection, half close it."""

    def __init__(self, count: int, pause_s: float = 0.0) -> None:
        self._pause_s = pause_s
        self.outcomes: Counter[str] = Counter()
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._ask, args=(index % 2 == 0,)) for index in range(count)]

    def __enter__(self) -> "Callers":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, keeps: bool) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", SERVICE, timeout=30)
        while not self._over.wait(self._pause_s):
            try:
                headers = {"content-type": "application/json", "connection": "keep-alive" if keeps else "close"}
                connection.request("POST", "/classify", BODY, headers)
                response = connection.getresponse()
                response.read()
                outcome = str(response.status)
            except OSError as error:
                outcome = type(error).__name__
                connection.close()
            except http.client.HTTPException as error:
                outcome = type(error).__name__
                connection.close()
            with self._lock:
                self.outcomes[outcome] += 1
        connection.close()
