"""Each method on each route, with a body and without.

Size: rounds. What a route does not have is a 405 that names what it has; nothing waits, and a HEAD has no body.
"""

from tests.attacks.harness.attack import Attack, Seen
from tests.attacks.harness.requests import ask_for, get, post
from tests.attacks.harness.server import Server
from tests.attacks.harness.wire import Caller

METHODS = ["GET", "HEAD", "OPTIONS", "TRACE", "CONNECT", "PUT", "PATCH", "DELETE", "PROPFIND", "POST"]
ROUTES = [
    "/classify",
    "/health/live",
    "/health/ready",
    "/models",
    "/metrics",
    "/openapi.json",
    "/docs",
    "/",
    "/nothing",
]
BODY = ask_for("a good film")


def run(server: Server, size: int, seen: Seen) -> None:
    """Ask for each route by each method, then for liveness on the same connection if it is kept."""
    for route in ROUTES * size:
        for method in METHODS:
            for request in (
                get(route, method, content_length="0"),
                post(BODY, route).replace(b"POST", method.encode(), 1),
            ):
                _try(server, seen, method, route, request)


def _try(server: Server, seen: Seen, method: str, route: str, request: bytes) -> None:
    with Caller(server.port) as caller:
        answer = caller.ask(request, bodiless=method == "HEAD")
        if route not in ("/docs", "/openapi.json"):  # pages for people, of another type
            seen.count(answer)
        if answer.status == 405:
            seen.claim(f"{method} {route}: a 405 says what is allowed", "allow" in answer.headers)
        if answer.headers.get("connection") != "close" and not answer.end:
            following = caller.ask(get("/health/live"))
            seen.claim(f"{method} {route}: then /health/live", following.status in (0, 200), following.outcome)


ATTACK = Attack(
    run, short=1, full=10, answers=frozenset({"200", "400", "404", "405", "415", "422", "501"}), answer_ms=500
)
