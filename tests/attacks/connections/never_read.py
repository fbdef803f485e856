"""Connections that ask for large answers and never read them.

Size: connections. The write time-out must close each, so that they do not pile up.
"""

from tests.attacks.harness.attack import Attack, Seen, together
from tests.attacks.harness.requests import get
from tests.attacks.harness.server import Server, wait_until
from tests.attacks.harness.wire import Caller

REQUESTS = get("/openapi.json") * 2_000
WRITE_TIMEOUT_S = 1
CLOSED_S = 8.0


def run(server: Server, size: int, seen: Seen) -> None:
    """Ask until nothing is taken, and wait for the server to let go."""
    before = server.descriptors()
    callers = [Caller(server.port, receive_bytes=4096) for _ in range(size)]
    together(lambda caller: caller.send(REQUESTS, stall_s=0.5), callers)
    closed = wait_until(lambda: server.descriptors() < before + max(1, size // 2), CLOSED_S)
    left = server.descriptors() - before
    seen.claim(f"connections are closed within {CLOSED_S:.0f} s", closed, f"{left} of {size} open")
    for caller in callers:
        caller.socket.close()


ATTACK = Attack(run, short=20, full=400, answers=frozenset(), options=("--write-timeout-s", str(WRITE_TIMEOUT_S)))
