"""Request lines and headers of real requests, mutated: never a 500, a hang or a traceback.

Size: requests. A mutated length may leave the server waiting for a body; then the caller ends its side.
"""

import contextlib
import socket
from random import Random

from tests.attacks.fuzz.mutation import mutate
from tests.attacks.harness.attack import Attack, Seen, together
from tests.attacks.harness.requests import ask_for, get, post
from tests.attacks.harness.server import Server
from tests.attacks.harness.wire import Caller

CALLERS = 16
WAITS_S = 0.25  # for an answer before the caller ends its side
BODY = ask_for("a good film")
CHUNKS = b"%x\r\n%s\r\n0\r\nx: y\r\n\r\n" % (len(BODY), BODY)
REQUESTS = [
    (post(b"", content_length=str(len(BODY)), accept="*/*", user_agent="a/1", x_request_id="abc"), BODY),
    (post(b"", content_length=None, transfer_encoding="chunked", te="trailers", expect="100-continue"), CHUNKS),
    (post(b"", content_length=str(len(BODY)), connection="keep-alive, upgrade", upgrade="h2c"), BODY),
    (get("/metrics", accept="application/openmetrics-text; version=1.0.0;q=0.5, text/plain"), b""),
    (get("/models/nobody?a=b", accept_encoding="gzip, br"), b""),
    (get("/health/ready", connection="close"), b""),
]
STATUSES = (
    "200",
    "307",
    "400",
    "404",
    "405",
    "408",
    "411",
    "413",
    "414",
    "415",
    "417",
    "422",
    "429",
    "431",
    "501",
    "505",
)


def run(server: Server, size: int, seen: Seen) -> None:
    """Send mutated heads, CALLERS at once, each from its own seed."""

    def caller(seed: int) -> None:
        random = Random(seed)
        for _ in range(size // CALLERS):
            head, body = random.choice(REQUESTS)
            head = mutate(head, random)
            with Caller(server.port) as connection:
                connection.send(head + body, stop_when_answered=True)
                if not connection.spoken(WAITS_S):
                    with contextlib.suppress(OSError):
                        connection.socket.shutdown(socket.SHUT_WR)
                seen.count(connection.answer(bodiless=head.startswith(b"HEAD")))

    together(caller, range(CALLERS))


ATTACK = Attack(run, short=400, full=10_000, answers=frozenset({*STATUSES, "closed"}), answer_ms=1000)
