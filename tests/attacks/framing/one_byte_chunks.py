"""Bodies in chunks of one byte: 12 MB on the wire for a body of 2 MB, the limit.

Size: kilobytes of a body, CALLERS at once.
"""

from tests.attacks.harness.attack import Attack, Seen, at_once
from tests.attacks.harness.requests import ask_for, post
from tests.attacks.harness.server import Server
from tests.attacks.harness.wire import ask

CALLERS = 8
BODY = ask_for("a good film")
HEAD = post(b"", content_length=None, transfer_encoding="chunked")


def chunked(body: bytes) -> bytes:
    """A body in chunks of one byte."""
    return b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"


def run(server: Server, size: int, seen: Seen) -> None:
    """Send a small body, and then padded ones, a little under the size and a little over."""
    answer = seen.count(ask(server.port, HEAD + chunked(BODY)))
    seen.claim("a small body is answered", answer.status == 200, answer.outcome)
    for padded_bytes in (800 * size, 1_200 * size):
        at_once(server, seen, HEAD + chunked(BODY.ljust(padded_bytes)), CALLERS)


ATTACK = Attack(run, short=50, full=2_000, answers=frozenset({"200", "431"}))
