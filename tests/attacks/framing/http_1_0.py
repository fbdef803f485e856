"""HTTP/1.0, with and without `connection: keep-alive`, as `ab -k` sends it.

Size: requests on one connection. A server that keeps the connection open must say so, or the caller waits for its end.
"""

from tests.attacks.harness.attack import Attack, Seen
from tests.attacks.harness.requests import ask_for, get, post
from tests.attacks.harness.server import Server
from tests.attacks.harness.wire import Caller

BODY = ask_for("a good film")
ROUTES = ["/classify", "/nothing"]


def run(server: Server, size: int, seen: Seen) -> None:
    """Ask in HTTP/1.0."""
    kept = [post(BODY, path, version="1.0", connection="keep-alive") for path in ROUTES]
    for request in [*kept, get("/health/live", connection="keep-alive").replace(b"HTTP/1.1", b"HTTP/1.0")]:
        with Caller(server.port) as caller:
            for _ in range(size):
                answer = seen.count(caller.ask(request))
                if answer.headers.get("connection", "").lower() != "keep-alive":
                    seen.claim("without keep-alive in the answer it is closed", caller.closed(within_s=2))
                    break
    for path in ROUTES:
        with Caller(server.port) as caller:
            seen.count(caller.ask(post(BODY, path, version="1.0")))
            seen.claim("without keep-alive in the request it is closed", caller.closed(within_s=2))


ATTACK = Attack(run, short=3, full=1_000, answers=frozenset({"200", "404"}), answer_ms=250)
