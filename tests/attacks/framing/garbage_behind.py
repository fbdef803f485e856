"""Good requests with garbage behind them in one segment: the requests are answered first, in order.

Size: rounds.
"""

from tests.attacks.harness.attack import Attack, Seen
from tests.attacks.harness.requests import ask_for, get, post
from tests.attacks.harness.server import Server
from tests.attacks.harness.wire import Caller

GOOD = [post(ask_for("a good film")), post(b'{"inputs": []}'), get("/health/live"), get("/nothing")]
STATUSES = {GOOD[0]: 200, GOOD[1]: 422, GOOD[2]: 200, GOOD[3]: 404}
GARBAGE = [
    b"\x00\x01\x02\r\n\r\n",
    b"GARBAGE\r\n\r\n",
    b"POST /classify HTTP/1.1\r\ncontent-length: x\r\n\r\n",
    b"\xff" * 50,
]


def run(server: Server, size: int, seen: Seen) -> None:
    """Send two good requests and garbage."""
    pairs = [(first, second) for first in GOOD for second in GOOD]
    for garbage in GARBAGE * size:
        for pair in pairs:
            with Caller(server.port) as caller:
                caller.send(b"".join(pair) + garbage)
                answers = [seen.count(caller.answer()) for _ in range(3)]
                found = [answer.status for answer in answers]
                wanted = [*[STATUSES[request] for request in pair], 400]
                seen.claim(f"{wanted} before {garbage[:12]!r}", found == wanted, [answer.outcome for answer in answers])
                seen.claim("and hung up", caller.closed(within_s=5))


ATTACK = Attack(run, short=1, full=10, answers=frozenset({"200", "400", "404", "422"}), answer_ms=250)
