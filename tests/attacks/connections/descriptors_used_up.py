"""More connections than the process has file descriptors for.

Size: connections over that. Who is connected is answered, `/metrics` too, and there is room again afterwards.
"""

import contextlib
import resource

from tests.attacks.harness.attack import Attack, Seen
from tests.attacks.harness.requests import ask_for, get, post
from tests.attacks.harness.server import Server, started, wait_until
from tests.attacks.harness.wire import Caller

DESCRIPTORS = 128
BACK_S = 5.0


def run(server: Server, size: int, seen: Seen) -> None:
    """Take away the descriptors of a server of its own, use up the rest, and ask."""
    with started(server.models) as target:
        resource.prlimit(target.process.pid, resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))
        with contextlib.ExitStack() as stack:
            first = stack.enter_context(Caller(target.port))
            seen.count(first.ask(get("/health/live")))
            for _ in range(DESCRIPTORS + size):
                stack.enter_context(Caller(target.port))
            for request in (get("/metrics"), post(ask_for("a good film")), get("/health/live")):
                seen.count(first.ask(request))

        def live() -> bool:
            with Caller(target.port, patience_s=1) as caller:
                return caller.ask(get("/health/live")).status == 200

        seen.claim("room again afterwards", wait_until(live, BACK_S))
        seen.claim("the log holds no traceback", "Traceback" not in target.log)
        seen.claim("and is short", len(target.log) < 100_000, f"{len(target.log)} characters")


ATTACK = Attack(run, short=50, full=1_000, answers=frozenset({"200"}), ends=True)
