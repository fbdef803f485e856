"""More connections than the server takes: those over the limit get a 503, the others go on.

Size: connections over the limit.
"""

from tests.attacks.harness.attack import Attack, Seen
from tests.attacks.harness.requests import ask_for, get, post
from tests.attacks.harness.server import Server, wait_until
from tests.attacks.harness.wire import Caller

LIMIT = 64
SHORT_TEXT = post(ask_for("a good film"))
BACK_S = 5.0


def run(server: Server, size: int, seen: Seen) -> None:
    """Use up the limit, ask on all connections, then close them and ask again."""
    callers = [Caller(server.port) for _ in range(LIMIT + size)]
    outcomes = [seen.count(caller.ask(SHORT_TEXT)).outcome for caller in callers]
    seen.claim("within the limit: 200", set(outcomes[: LIMIT - 8]) == {"200"}, outcomes[:3])
    seen.claim("over it: 503", set(outcomes[LIMIT:]) == {"503"}, outcomes[-3:])
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
    answers=frozenset({"200", "503"}),
    probes=frozenset({"200", "503"}),
    options=("--max-connections", str(LIMIT)),
)
