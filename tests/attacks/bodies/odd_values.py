"""Values out of range or barely within it: huge numbers, infinities, wrong types, tiny deadlines, non-object bodies.

Size: rounds over the bodies.
"""

from tests.attacks.harness.attack import Attack, Seen
from tests.attacks.harness.requests import post
from tests.attacks.harness.server import Server
from tests.attacks.harness.wire import ask

VALUES = [
    *["0", "-1", "1e999", "-1e999", "1e-999", "NaN", "Infinity", "9" * 5_000, "0." + "9" * 100_000, "1.0", "1e2"],
    *['""', '"1"', "true", "null", "[]", "{}", "[1]", '"\\u0000"', '"../../etc/passwd"', "18446744073709551616"],
]
FIELDS = ["model", "top_k", "function_to_apply", "truncate", "truncation_direction", "timeout_ms", "inputs"]
WHOLE = ["", " ", "null", "1", '"a"', "[]", "{}", "\ufeff{}", '{"inputs":"a"}{}', '{"inputs":"a",}', '{"inputs":"a"']


def run(server: Server, size: int, seen: Seen) -> None:
    """Send every value in every field."""
    bodies = [f'{{"inputs": "a", "{field}": {value}}}' for field in FIELDS for value in VALUES]
    for body in [*bodies, *WHOLE] * size:
        seen.count(ask(server.port, post(body.encode())))


ATTACK = Attack(run, short=1, full=10, answers=frozenset({"200", "400", "404", "413", "422", "504"}), answer_ms=250)
