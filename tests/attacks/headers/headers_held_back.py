"""Connections that send 30 KB of headers and then wait.

Size: connections.
"""

from tests.attacks.harness.attack import Attack, Seen
from tests.attacks.harness.requests import post
from tests.attacks.harness.server import Server
from tests.attacks.harness.wire import Caller

HEAD = post(b"", cookie="c" * 30_000)[:-4]


def run(server: Server, size: int, seen: Seen) -> None:
    """Send all heads but their end, and read what refused connections get."""
    callers = []
    try:
        for _ in range(size):
            callers.append(Caller(server.port))
            callers[-1].send(HEAD, stall_s=1, stop_when_answered=True)
        for caller in callers:
            if caller.spoken():
                seen.count(caller.answer())
    finally:
        for caller in callers:
            caller.socket.close()


ATTACK = Attack(run, short=200, full=2_000, answers=frozenset({"429", "431", "503"}))
