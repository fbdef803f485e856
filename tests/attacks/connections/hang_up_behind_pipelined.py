"""A list of 512 pairs with another request pipelined behind it; then the caller hangs up.

Size: callers, one after the other. The server must see that they left, and compute nothing for them.
"""

import json

from tests.attacks.harness.attack import Attack, Seen
from tests.attacks.harness.requests import post
from tests.attacks.harness.server import Server, wait_until
from tests.attacks.harness.wire import Caller

PAIRS = 512
SHARE = 0.5  # that may be computed before the hang-up is known


def run(server: Server, size: int, seen: Seen) -> None:
    """Send, hang up, and count what was computed all the same."""
    inputs = [{"text": "a good film", "text_pair": "not a bad film"}] * PAIRS
    request = post(json.dumps({"inputs": inputs, "model": server.models.pair}).encode())
    for behind in (request, b"POST /classify HT"):
        before = _computed(server)
        for _ in range(size):
            with Caller(server.port) as caller:
                caller.send(request + behind)
        wait_until(lambda: server.metrics()["ladabert_requests_in_progress"] == 0, 30)
        computed = _computed(server) - before
        limit = SHARE * PAIRS * size
        seen.claim(f"of {size * PAIRS} pairs at most {limit:.0f} are computed", computed <= limit, f"{computed:.0f}")


def _computed(server: Server) -> float:
    return server.metrics()[f'ladabert_batch_size_sum{{model="{server.models.pair}"}}']


ATTACK = Attack(run, short=10, full=10, answers=frozenset(), options=("--max-batch-size", "1", "--runners", "1"))
