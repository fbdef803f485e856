"""Bytes that are not HTTP/1.1: TLS, HTTP/2, HTTP/0.9, odd versions, SSH, zeros, nothing.

Size: rounds. Each gets a 400 that is a problem with an id, and the connection ends.
"""

from tests.attacks.harness.attack import Attack, Seen
from tests.attacks.harness.server import Server
from tests.attacks.harness.wire import Caller

STARTS = [
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\xaa" * 500,
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00" * 9,
    b"GET /health/live\r\n\r\n",
    *[b"GET /health/live HTTP/%s\r\nhost: x\r\n\r\n" % version for version in (b"2.0", b"1.2", b"9.9", b"1", b"1.1.1")],
    *[
        b"GET /health/live %s\r\nhost: x\r\n\r\n" % word
        for word in (b"http/1.1", b"HTTPS/1.1", b"RTSP/1.0", b"ICE/1.0")
    ],
    b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
    b"\x00" * 1_000 + b"\r\n\r\n",
    b"\xff" * 1_000 + b"\r\n\r\n",
    b"BREW /pot HTTP/1.1\r\nhost: x\r\n\r\n",
    b"get /health/live HTTP/1.1\r\nhost: x\r\n\r\n",
    b"GET  /health/live HTTP/1.1\r\nhost: x\r\n\r\n",
    b"GET /health/live\tHTTP/1.1\r\nhost: x\r\n\r\n",
    b"GET health HTTP/1.1\r\nhost: x\r\n\r\n",
    b"GET /health/\x00live HTTP/1.1\r\nhost: x\r\n\r\n",
    b"GET /health/\xfflive HTTP/1.1\r\nhost: x\r\n\r\n",
]


def run(server: Server, size: int, seen: Seen) -> None:
    """Send each start."""
    for start in STARTS * size:
        with Caller(server.port) as caller:
            answer = seen.count(caller.ask(start))
            if answer.outcome == "400":
                seen.claim(f"{start[:30]!r}: a 400 ends the connection", caller.closed(within_s=5))


ATTACK = Attack(run, short=1, full=20, answers=frozenset({"200", "400", "404", "405", "505"}), answer_ms=250)
