"""Lists of 31 texts of 64 KB; each of four callers sends the next one as soon as the last is answered.

Size: lists of each caller. Tokenising them is work of seconds, which must not hold up a short text.
"""

from tests.attacks.harness.attack import Attack, Seen, together
from tests.attacks.harness.requests import ask_for, post
from tests.attacks.harness.server import Server
from tests.attacks.harness.wire import Caller

CALLERS = 4
LIST = post(ask_for(["a good film " * 5_400] * 31))


def run(server: Server, size: int, seen: Seen) -> None:
    """Send lists from CALLERS connections."""

    def caller(_: int) -> None:
        for _ in range(size):
            with Caller(server.port, patience_s=60) as connection:
                seen.count(connection.ask(LIST))

    together(caller, range(CALLERS))


ATTACK = Attack(run, short=1, full=6, answers=frozenset({"200", "413", "429", "503", "504"}))
