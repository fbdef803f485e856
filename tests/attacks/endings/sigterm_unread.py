"""SIGTERM while some connections hold unread answers, some half-sent headers, and some nothing.

Size: connections of each kind. None may hold up the end longer than the write time-out; what was asked is answered.
"""

import time

from tests.attacks.harness.attack import Attack, Seen, together
from tests.attacks.harness.requests import get, post
from tests.attacks.harness.server import Server, started
from tests.attacks.harness.wire import Caller

UNREAD = get("/openapi.json") * 2_000
PARTS = [b"", post(b"{}")[:30]]
GRACE_S, WRITE_TIMEOUT_S = 10, 1
EXIT_S = 5.0


def run(server: Server, size: int, seen: Seen) -> None:
    """Stop a server of its own, and measure how long it takes."""
    options = ("--grace-period-s", str(GRACE_S), "--write-timeout-s", str(WRITE_TIMEOUT_S))
    for kinds in ([UNREAD], PARTS):
        with started(server.models, *options) as target:
            callers = [(Caller(target.port, receive_bytes=4096), data) for data in kinds for _ in range(size)]
            together(lambda pair: pair[0].send(pair[1], stall_s=0.5), callers)
            began = time.monotonic()
            target.signal()
            code = target.wait(GRACE_S + 5)
            took_s = time.monotonic() - began
            what = "unread answers" if kinds == [UNREAD] else "parts of requests"
            seen.claim(
                f"{what}: exit code 0 within {EXIT_S:.0f} s", code == 0 and took_s < EXIT_S, f"{code}, {took_s:.1f} s"
            )
            for caller, _ in callers:
                caller.socket.close()


ATTACK = Attack(run, short=10, full=200, answers=frozenset(), ends=True)
