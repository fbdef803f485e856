"""Callers who ask for the metrics and the schema without pause, with odd `Accept` headers.

Size: requests of each caller.
"""

from tests.attacks.harness.attack import Attack, Seen, together
from tests.attacks.harness.requests import get
from tests.attacks.harness.server import Server
from tests.attacks.harness.wire import Caller

CALLERS = 8
REQUESTS = [
    get("/metrics"),
    get("/metrics", accept="application/openmetrics-text; version=1.0.0; escaping=allow-utf-8"),
    get("/metrics", accept="application/openmetrics-text;q=x, */*;q=, ;;;,,,"),
    get("/metrics?name[]=" + "a" * 2_000),
    get("/openapi.json"),
    get("/models"),
]


def run(server: Server, size: int, seen: Seen) -> None:
    """Scrape, CALLERS at once."""

    def caller(_: int) -> None:
        with Caller(server.port) as connection:
            for index in range(size):
                seen.count(connection.ask(REQUESTS[index % len(REQUESTS)]))

    together(caller, range(CALLERS))


ATTACK = Attack(run, short=12, full=300, answers=frozenset({"200", "429", "503"}))
