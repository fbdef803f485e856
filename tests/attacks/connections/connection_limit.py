"""More connections than the limit: each new one is answered and replaces the one that has been idle longest.

Size: connections over the limit that send nothing.
"""

from tests.attacks.harness.attack import Attack, Seen
from tests.attacks.harness.requests import ask_for, get, post
from tests.attacks.harness.server import Server, wait_until
from tests.attacks.harness.wire import Caller

LIMIT = 64
SHORT_TEXT = post(ask_for("a good film"))
BACK_S = 5.0


def run(server: Server, size: int, seen: Seen) -> None:
    """Use up the limit, go on connecting, then close all and ask again."""
    callers = [Caller(server.port) for _ in range(LIMIT // 2)]
    outcomes = [seen.count(caller.ask(SHORT_TEXT)).outcome for caller in callers]
    callers += [Caller(server.port) for _ in range(LIMIT + size)]  # which send nothing
    outcomes += [seen.count(caller.ask(SHORT_TEXT)).outcome for caller in callers[: LIMIT // 2] + callers[-8:]]
    seen.claim("all who ask are answered", set(outcomes) == {"200"}, outcomes)
    for caller in callers:
        caller.socket.close()
    seen.claim("room again afterwards", wait_until(lambda: _live(server), BACK_S))


def _live(server: Server) -> bool:
    with Caller(server.port) as caller:
        return caller.ask(get("/health/live")).status == 200


ATTACK = Attack(
    run,
    short=40,
    full=500,
    answers=frozenset({"200"}),
    options=("--max-connections", str(LIMIT)),
)
