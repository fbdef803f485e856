"""2 MB of nested lists or nested objects, closed or left open.

Size: how many send at once.
"""

from tests.attacks.harness.attack import Attack, Seen, at_once
from tests.attacks.harness.requests import post
from tests.attacks.harness.server import Server

DEPTH = 1_000_000
BODIES = [
    '{"inputs": ' + "[" * DEPTH + "]" * DEPTH + "}",
    "[" * 2 * DEPTH,
    '{"a":' * (DEPTH // 3),
    '{"inputs": ' + '{"text":' * 200_000 + "1" + "}" * 200_001,
    '{"inputs": ' + "[" * 900 + "]" * 900 + "}",
]


def run(server: Server, size: int, seen: Seen) -> None:
    """Send each body, `size` at once."""
    for body in BODIES:
        at_once(server, seen, post(body.encode()), size)


ATTACK = Attack(run, short=1, full=16, answers=frozenset({"400", "413", "422", "429", "503"}))
