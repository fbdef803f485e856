"""Callers who reset the connection in every state: before or within a request, before or within its answer.

Size: rounds.
"""

from tests.attacks.harness.attack import Attack, Seen, together
from tests.attacks.harness.requests import ask_for, get, post
from tests.attacks.harness.server import Server
from tests.attacks.harness.wire import Caller, ask

LIST = post(ask_for(["a good film"] * 200))
STATES = [b"", b"P", LIST[:60], LIST[:-100], LIST, LIST * 3, get("/openapi.json"), get("/metrics"), b"\x00\r\n\r\n"]
CALLERS = 8


def run(server: Server, size: int, seen: Seen) -> None:
    """Send and reset, CALLERS at once, who see after each round that the server lives."""

    def caller(_: int) -> None:
        for _ in range(size):
            for state in STATES:
                connection = Caller(server.port)
                connection.send(state)
                connection.reset()
            seen.count(ask(server.port, get("/health/live")))

    together(caller, range(CALLERS))


ATTACK = Attack(run, short=3, full=100, answers=frozenset({"200"}))
