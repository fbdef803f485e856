"""A pair of 64 KB for a model that compares two texts: 32 KB each, or one long and one short.

Size: requests, one after the other. A tokenizer that keeps what it cuts off makes gigabytes of it.
"""

from tests.attacks.harness.attack import Attack, Seen
from tests.attacks.harness.requests import ask_for, post
from tests.attacks.harness.server import Server
from tests.attacks.harness.wire import ask

LONG, HALF, SHORT = "a " * 32_000, "a b c d " * 4_000, "a"
PAIRS = [(HALF, HALF), (LONG, SHORT), (SHORT, LONG), ("a" * 32_000, HALF)]


def run(server: Server, size: int, seen: Seen) -> None:
    """Ask about each pair, cut at either end."""
    for index in range(size):
        text, text_pair = PAIRS[index % len(PAIRS)]
        direction = ("right", "left")[index // len(PAIRS) % 2]
        inputs = {"text": text, "text_pair": text_pair}
        body = ask_for(inputs, model=server.models.pair, truncation_direction=direction)
        seen.count(ask(server.port, post(body)))


ATTACK = Attack(run, short=4, full=16, answers=frozenset({"200", "413"}), answer_ms=100)
