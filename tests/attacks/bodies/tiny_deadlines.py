"""Texts with a deadline of a millisecond: the server must drop their work and keep nothing of them.

Size: requests, 16 at once.
"""

from tests.attacks.harness.attack import Attack, Seen, together
from tests.attacks.harness.requests import ask_for, post
from tests.attacks.harness.server import Server
from tests.attacks.harness.wire import Caller

CALLERS = 16
REQUEST = post(ask_for(["a good film " * 100] * 8, timeout_ms=1))


def run(server: Server, size: int, seen: Seen) -> None:
    """Send requests that are too late."""

    def caller(_: int) -> None:
        with Caller(server.port) as connection:
            for _ in range(size // CALLERS):
                seen.count(connection.ask(REQUEST))

    together(caller, range(CALLERS))


ATTACK = Attack(run, short=160, full=3_200, answers=frozenset({"200", "429", "504"}))
