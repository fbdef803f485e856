"""Texts of escapes: unpaired surrogates by the hundred thousand, pairs of them, and escaped NULs.

Size: how many send at once.
"""

from tests.attacks.harness.attack import Attack, Seen, at_once
from tests.attacks.harness.requests import post
from tests.attacks.harness.server import Server

UNPAIRED, PAIRED, NUL = "\\ud800", "\\ud83d\\ude00", "\\u0000"
BODIES = [
    f'{{"inputs": "{UNPAIRED * 300_000}"}}',
    f'{{"inputs": "{PAIRED * 150_000}"}}',
    f'{{"inputs": "{PAIRED * 10_000}"}}',
    f'{{"inputs": "{NUL * 10_000}"}}',
    f'{{"inputs": [{",".join([f"{chr(34)}{UNPAIRED}{chr(34)}"] * 200_000)}]}}',
    f'{{"inputs": "a", "model": "{UNPAIRED * 100_000}"}}',
    f'{{"inputs": "a", "{UNPAIRED * 100_000}": 1}}',
]


def run(server: Server, size: int, seen: Seen) -> None:
    """Send each body, `size` at once."""
    for body in BODIES:
        at_once(server, seen, post(body.encode()), size)


ATTACK = Attack(run, short=1, full=16, answers=frozenset({"200", "400", "404", "413", "422", "429", "503"}))
