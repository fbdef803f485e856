"""Connections that are opened and left idle, half of them after the start of a request.

Size: connections. Others may be refused by a 503, but the server stays small and comes back.
"""

from tests.attacks.harness.attack import Attack, Seen
from tests.attacks.harness.requests import get, post
from tests.attacks.harness.server import Server
from tests.attacks.harness.wire import Caller

BEGINNING = post(b"", content_length="5")[:40]


def run(server: Server, size: int, seen: Seen) -> None:
    """Open connections, ask on one more, and close them."""
    callers = []
    try:
        for index in range(size):
            callers.append(Caller(server.port))
            if index % 2:
                callers[-1].send(BEGINNING)
        with Caller(server.port) as another:
            seen.count(another.ask(get("/health/live")))
    finally:
        for caller in callers:
            caller.socket.close()


ATTACK = Attack(run, short=1_000, full=10_000, answers=frozenset({"200", "503"}), probes=frozenset({"200", "503"}))
