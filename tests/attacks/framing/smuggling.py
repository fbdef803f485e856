"""A second request hidden in the first: lengths that contradict each other, are repeated, or are written oddly.

Size: rounds. A proxy in front may read the other length, so that nothing behind a doubtful one is ever answered.
"""

from tests.attacks.harness.attack import Attack, Seen
from tests.attacks.harness.requests import ask_for
from tests.attacks.harness.server import Server
from tests.attacks.harness.wire import Caller

BODY = ask_for("a")
HIDDEN = b"GET /health/live HTTP/1.1\r\nhost: x\r\nx-request-id: hidden\r\n\r\n"
CHUNKED = b"transfer-encoding: chunked"
LENGTHS = [
    [b"content-length: %d" % len(BODY), CHUNKED],
    [CHUNKED, b"content-length: %d" % len(BODY)],
    [b"content-length: 5", b"content-length: %d" % len(BODY)],
    [b"content-length: 5, %d" % len(BODY)],
    *[
        [b"content-length: " + value]
        for value in (b"+15", b"-1", b"0x0f", b"1 5", b"15a", b"", b"9" * 30, b"1e1", b"\x0b15")
    ],
    *[
        [b"transfer-encoding: " + value]
        for value in (b"xchunked", b"chunked, identity", b"identity", b"gzip", b"", b"x")
    ],
    [CHUNKED, b"transfer-encoding: identity"],
    [CHUNKED, b"transfer-encoding: x"],
    [b"transfer-encoding : chunked"],
    [b"transfer-encoding\x0b: chunked"],
    [b" " + CHUNKED],
    [b"x: 1\n" + CHUNKED, b"content-length: %d" % len(BODY)],
]
SIZES = [b"1x", b"0x1", b"-1", b"+1", b" 1", b"1 ", b"fffffffffffffffff", b"", b"1\n", b"1;\n"]


def run(server: Server, size: int, seen: Seen) -> None:
    """Send each length and each chunk size, with a request behind."""
    head = b"POST /classify HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    for lines in LENGTHS * size:
        _try(server, seen, head + b"\r\n".join(lines) + b"\r\n\r\n" + BODY, str(lines))
    for chunk_size in SIZES * size:
        body = chunk_size + b"\r\n{\r\n0\r\n\r\n"
        _try(server, seen, head + CHUNKED + b"\r\n\r\n" + body, f"a chunk of {chunk_size!r}")


def _try(server: Server, seen: Seen, request: bytes, what: str) -> None:
    with Caller(server.port, patience_s=5) as caller:
        seen.count(caller.ask(request + HIDDEN))
        following = caller.answer()
        seen.claim(f"{what}: nothing behind it is answered", following.end in ("closed", "cut"), following.outcome)


ATTACK = Attack(run, short=1, full=20, answers=frozenset({"400", "411", "501"}), answer_ms=250)
