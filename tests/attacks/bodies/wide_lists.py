"""2 MB of inputs that cost two bytes each: numbers, objects, lists, nulls, empty texts.

Size: how many send at once. What is no list of texts must be refused before each entry is looked at.
"""

from tests.attacks.harness.attack import Attack, Seen, at_once
from tests.attacks.harness.requests import post
from tests.attacks.harness.server import Server

BODY_BYTES = 2_000_000
ENTRIES = ["1", "{}", "[]", '""', "null", '{"text":1}', '{"a":1}', "1e9", "[[]]"]


def wide(entry: str) -> bytes:
    """A body of almost BODY_BYTES of one entry."""
    return f'{{"inputs": [{",".join([entry] * (BODY_BYTES // (len(entry) + 1)))}]}}'.encode()


def run(server: Server, size: int, seen: Seen) -> None:
    """Send each kind of list, `size` at once."""
    for entry in ENTRIES:
        at_once(server, seen, post(wide(entry)), size)


ATTACK = Attack(run, short=1, full=16, answers=frozenset({"413", "422", "429", "503"}))
