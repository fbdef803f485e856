"""`Expect` used wrongly: no body after it, a body at once, a length over the limit, on a GET, unknown values.

Size: rounds. A body over the limit must be refused before it is sent, and a leaving caller leaves nothing behind.
"""

import time

from tests.attacks.harness.attack import Attack, Seen
from tests.attacks.harness.requests import ask_for, get, post
from tests.attacks.harness.server import Server
from tests.attacks.harness.wire import Caller

BODY = ask_for("a good film")
AT_ONCE = [
    post(BODY, expect="100-continue"),
    post(BODY, expect="100-Continue"),
    post(BODY, version="1.0", expect="100-continue", connection="close"),
    post(BODY, expect="100-continue, 100-continue"),
    post(b"{", expect="100-continue"),
    get("/health/live", expect="100-continue"),
    get("/classify", expect="100-continue"),
    post(BODY, "/nothing", expect="100-continue"),
]
TOO_LONG = post(b"", expect="100-continue", content_length="100000000")
EMPTY = post(b"", expect="100-continue", content_length=str(len(BODY)))


def run(server: Server, size: int, seen: Seen) -> None:
    """Send each request, then refuse to go on, or leave."""
    for request in AT_ONCE * size:
        with Caller(server.port) as caller:
            seen.count(caller.ask(request))
    for _ in range(size):
        with Caller(server.port) as caller:
            began = time.monotonic()
            answer = seen.count(caller.ask(TOO_LONG))
            seen.claim("too long a body is refused unsent", answer.status == 413, answer.outcome)
            seen.claim("and at once", time.monotonic() - began < 2)
        with Caller(server.port) as caller:
            caller.send(EMPTY)
        with Caller(server.port) as caller:
            caller.send(EMPTY)
            caller.send(BODY)  # not `ask`, which stops sending when the server speaks: here it says 100 in between
            seen.count(caller.answer())


ATTACK = Attack(run, short=1, full=20, answers=frozenset({"200", "400", "404", "405", "413", "417"}), answer_ms=1000)
