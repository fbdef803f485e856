"""Connections that send all but the last byte of a 2 MB body, and then wait.

Size: connections. What the server holds for all of them together must have a bound: the others get a 429 or 503.
"""

from tests.attacks.harness.attack import Attack, Seen, together
from tests.attacks.harness.requests import post
from tests.attacks.harness.server import Server
from tests.attacks.harness.wire import Caller

BODY_BYTES = 2_000_000
REQUEST = post(b" " * BODY_BYTES)[:-1]
STALL_S = 2.0


def run(server: Server, size: int, seen: Seen) -> None:
    """Send all bodies, and read the answers of those that were refused."""
    callers = [Caller(server.port) for _ in range(size)]
    together(lambda caller: caller.send(REQUEST, stall_s=STALL_S, stop_when_answered=True), callers)
    for caller in callers:
        with caller:
            if caller.spoken():
                seen.count(caller.answer())


ATTACK = Attack(run, short=100, full=400, answers=frozenset({"413", "429", "503"}))
