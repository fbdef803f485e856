"""2 MB of unknown keys: beside `inputs`, in an input, or one key repeated.

Size: how many send at once. The first unknown key is enough to refuse them.
"""

from tests.attacks.harness.attack import Attack, Seen, at_once
from tests.attacks.harness.requests import post
from tests.attacks.harness.server import Server

KEYS = ",".join(f'"k{index}":1' for index in range(150_000))
SAME = ",".join(['"inputs":1'] * 150_000)
LONG = '"' + "k" * 1_900_000 + '":1'
BODIES = [
    f'{{"inputs":"a",{KEYS}}}',
    f'{{"inputs":{{"text":"a",{KEYS}}}}}',
    f'{{"inputs":[{{"text":"a",{KEYS}}}]}}',
    f"{{{SAME}}}",
    f'{{"inputs":"a",{LONG}}}',
]


def run(server: Server, size: int, seen: Seen) -> None:
    """Send each body, `size` at once."""
    for body in BODIES:
        at_once(server, seen, post(body.encode()), size)


ATTACK = Attack(run, short=1, full=16, answers=frozenset({"413", "422", "429", "503"}))
