"""Trailers with the names of headers: they must change neither this request nor the next.

Size: rounds.
"""

from tests.attacks.harness.attack import Attack, Seen
from tests.attacks.harness.requests import ask_for, post
from tests.attacks.harness.server import Server
from tests.attacks.harness.wire import Caller

BODY = ask_for("a good film")
TRAILERS = [
    *["x-request-id: from-a-trailer", "content-type: text/plain", "connection: close", "host: y"],
    *["expect: 100-continue", "upgrade: h2c", "authorization: Bearer a"],
]
FRAMING = ["content-length: 5", "transfer-encoding: gzip"]  # which HTTP forbids there: refused or ignored


def run(server: Server, size: int, seen: Seen) -> None:
    """Send each trailer with a good request, whole and cut before it, and a plain request behind."""
    for trailer in TRAILERS * size:
        whole = _chunked(trailer)
        start = whole.rindex(trailer.encode())
        for pieces in ([whole[:start], whole[start:]], [whole]):
            with Caller(server.port) as caller:
                for piece in pieces[:-1]:
                    caller.send(piece)
                answer = seen.count(caller.ask(pieces[-1]))
                request_id = answer.headers.get("x-request-id")
                seen.claim(f"{trailer}: the id is the header's", request_id in ("from-a-header", None), request_id)
                seen.claim(f"{trailer}: the connection stays", answer.headers.get("connection") != "close")
                following = seen.count(caller.ask(post(BODY)))
                seen.claim(f"{trailer}: the next is answered", following.status == 200, following.outcome)
    for trailer in FRAMING:
        with Caller(server.port) as caller:
            answer = caller.ask(_chunked(trailer))
            seen.claim(f"{trailer}: refused or ignored", answer.status in (200, 400), answer.outcome)


def _chunked(trailer: str) -> bytes:
    head = post(b"", content_length=None, transfer_encoding="chunked", x_request_id="from-a-header", te="trailers")
    return b"%b%x\r\n%b\r\n0\r\n%b\r\n\r\n" % (head, len(BODY), BODY, trailer.encode())


ATTACK = Attack(run, short=1, full=20, answers=frozenset({"200"}), answer_ms=250)
