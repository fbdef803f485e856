"""Headers just under and over the limit, as one large cookie or as many lines, sent whole and in pieces.

Size: rounds. The limit must be the server's own, whatever the pieces.
"""

from tests.attacks.harness.answer import Answer
from tests.attacks.harness.attack import Attack, Seen
from tests.attacks.harness.requests import ask_for, post
from tests.attacks.harness.server import Server
from tests.attacks.harness.wire import Caller

LIMIT_BYTES = 16_384
BODY = ask_for("a good film")
UNDER, OVER = LIMIT_BYTES - 1_024, LIMIT_BYTES + 1_024
PIECES = [None, 1_000, 7]


def run(server: Server, size: int, seen: Seen) -> None:
    """Send headers under and over the limit."""
    for piece in PIECES * size:
        for header_bytes, wanted in ((UNDER, "200"), (OVER, "431")):
            for request in (post(BODY, cookie="c" * header_bytes), post(BODY, **_many(header_bytes))):
                with Caller(server.port) as caller:
                    answer = seen.count(_in_pieces(caller, request, piece))
                seen.claim(f"{header_bytes} bytes get {wanted}", answer.outcome == wanted, answer.outcome)


def _many(total_bytes: int) -> dict[str, str]:
    return {f"x_{index:04}": "v" * 90 for index in range(total_bytes // 100)}


def _in_pieces(caller: Caller, request: bytes, size: int | None) -> Answer:
    if size is not None:
        for start in range(0, len(request) - size, size):
            caller.send(request[start : start + size], stop_when_answered=True)
        request = request[(len(request) - 1) // size * size :]
    return caller.ask(request)


ATTACK = Attack(
    run, short=1, full=5, answers=frozenset({"200", "431"}), options=("--max-header-bytes", str(LIMIT_BYTES))
)
