"""Requests cut in two at every byte, or sent byte by byte: the answer must be the same.

Size: every how many bytes there is a cut.
"""

from tests.attacks.harness.answer import Answer
from tests.attacks.harness.attack import Attack, Seen
from tests.attacks.harness.requests import ask_for, get, post
from tests.attacks.harness.server import Server
from tests.attacks.harness.wire import Caller

BODY = ask_for("a good film")
TWO_CHUNKS = b"5\r\n%s\r\n%x;a=b\r\n%s\r\n0\r\nx: y\r\n\r\n" % (BODY[:5], len(BODY) - 5, BODY[5:])
REQUESTS = [
    post(BODY) * 2,
    post(b"", content_length=None, transfer_encoding="chunked") + TWO_CHUNKS + post(BODY),
    post(b'{"inputs": []}') + post(BODY),
    get("/health/live") + post(BODY),
]


def run(server: Server, size: int, seen: Seen) -> None:
    """Send each pair of requests whole, in two pieces, and byte by byte."""
    for request in REQUESTS:
        whole = _answers(server, seen, [request])
        for cut in range(1, len(request), size):
            different = _answers(server, seen, [request[:cut], request[cut:]]) != whole
            if different:
                seen.claim(f"{request[:20]!r} cut at {cut}: the same answers", holds=False)
        single = [request[index : index + 1] for index in range(len(request))]
        seen.claim("byte by byte: the same answers", _answers(server, seen, single) == whole)


def _answers(server: Server, seen: Seen, pieces: list[bytes]) -> list[object]:
    with Caller(server.port) as caller:
        for piece in pieces:
            caller.send(piece)
        return [_gist(seen.count(caller.answer())) for _ in range(2)]


def _gist(answer: Answer) -> object:
    return answer.predictions if answer.status == 200 and b"predictions" in answer.body else answer.outcome


ATTACK = Attack(run, short=13, full=1, answers=frozenset({"200", "422"}))
