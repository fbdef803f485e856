"""Bodies of real requests, mutated: never a 500, a hang or a traceback.

Size: bodies.
"""

from random import Random

from tests.attacks.fuzz.mutation import mutate
from tests.attacks.harness.attack import Attack, Seen, together
from tests.attacks.harness.requests import ask_for, post
from tests.attacks.harness.server import Server
from tests.attacks.harness.wire import Caller

CALLERS = 4
STATUSES = ("200", "400", "404", "413", "422", "429", "504")


def run(server: Server, size: int, seen: Seen) -> None:
    """Send mutated bodies, CALLERS at once, each from its own seed."""
    pair = {"text": "a good film", "text_pair": "not a bad film"}
    bodies = [
        ask_for("a good film"),
        ask_for(["a good film", "not bad"], top_k=1, truncate=False, truncation_direction="left"),
        ask_for([pair, {"text": "é\U0001f600"}], model=server.models.pair, function_to_apply="none", timeout_ms=5000),
        '{"inputs": "\u4e00\\ud83d\\ude00 \\n\\"", "function_to_apply": "sigmoid"}'.encode(),
    ]

    def caller(seed: int) -> None:
        random = Random(seed)
        connection = Caller(server.port)
        for _ in range(size // CALLERS):
            answer = seen.count(connection.ask(post(mutate(random.choice(bodies), random))))
            if answer.end or answer.headers.get("connection") == "close":
                connection.socket.close()
                connection = Caller(server.port)
        connection.socket.close()

    together(caller, range(CALLERS))


ATTACK = Attack(run, short=400, full=10_000, answers=frozenset(STATUSES), answer_ms=1000)
