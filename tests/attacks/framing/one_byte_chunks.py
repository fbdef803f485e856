"""Bodies in chunks of one byte: 12 MB on the wire for the 2 MB that a body may have.

Size: connections at once.
"""

from tests.attacks.harness.attack import Attack, Seen, at_once
from tests.attacks.harness.server import Server
from tests.attacks.harness.wire import ask, ask_for, post

BODY = ask_for("a good film")
HEAD = post(b"", content_length=None, transfer_encoding="chunked")


def chunked(body: bytes) -> bytes:
    """A body in chunks of one byte."""
    return b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"


def run(server: Server, size: int) -> Seen:
    """Send a small body, and one padded with blanks to the limit, then one over it."""
    seen = Seen()
    answer = seen.count(ask(server.port, HEAD + chunked(BODY)))
    seen.claim("a small body is answered", answer.status == 200, answer.outcome)
    for padded_bytes in (2_000_000, 3_000_000):
        at_once(server, seen, HEAD + chunked(BODY.ljust(padded_bytes)), size)
    return seen


ATTACK = Attack(run, short=2, full=16, answers=frozenset({"200", "413", "429", "503"}))
