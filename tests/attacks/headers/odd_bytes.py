"""Header lines that no client sends: odd bytes in names and values, NULs, bare line breaks, folded lines, no colon.

Size: rounds. What is accepted must be answered as ever; what is not ends the connection with a 400.
"""

from tests.attacks.harness.attack import Attack, Seen
from tests.attacks.harness.requests import ask_for
from tests.attacks.harness.server import Server
from tests.attacks.harness.wire import Caller

BODY = ask_for("a good film")
LINES = [
    *[b"x%cy: 1" % odd for odd in (*range(0x21), 0x7F, 0x80, 0xFF, *b'"(),/:;<=>?@[\\]{}')],
    *[b"x: 1%c2" % odd for odd in (*range(0x20), 0x7F, 0x80, 0xFF)],
    *[
        b": no name",
        b"no colon",
        b" folded: 1",
        b"\tfolded: 1",
        b"x : 1",
        b"x\t: 1",
        b"x:",
        b"x:\t",
        b"x: 1\r\n folded",
    ],
    *[b"x: 1\nset-cookie: a", b"x: 1\rset-cookie: a", b"x-request-id: a\rset-cookie: b", b"accept: \xff\xfe"],
]


def run(server: Server, size: int, seen: Seen) -> None:
    """Send each line within a good request."""
    for line in LINES * size:
        head = b"POST /classify HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n" + line
        with Caller(server.port) as caller:
            answer = seen.count(caller.ask(head + b"\r\ncontent-length: %d\r\n\r\n" % len(BODY) + BODY))
            if answer.outcome == "400":
                seen.claim(f"{line!r}: a 400 ends the connection", caller.closed(within_s=5))
            seen.claim(f"{line!r}: no header comes back", "set-cookie" not in answer.headers)


ATTACK = Attack(run, short=1, full=10, answers=frozenset({"200", "400"}), answer_ms=250)
