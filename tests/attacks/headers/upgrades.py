"""Requests that offer another protocol: h2c (as `curl --http2` does), WebSocket, TLS, HTTP/2 at once.

Size: rounds. The offer is ignored and the request answered, as is what comes behind it.
"""

from tests.attacks.harness.attack import Attack, Seen
from tests.attacks.harness.requests import ask_for, get, post
from tests.attacks.harness.server import Server
from tests.attacks.harness.wire import Caller

BODY = ask_for("a good film")
WEBSOCKET = {"sec_websocket_key": "dGhlIHNhbXBsZSBub25jZQ==", "sec_websocket_version": "13"}
OFFERS = [
    {"connection": "Upgrade, HTTP2-Settings", "upgrade": "h2c", "http2_settings": "AAMAAABkAAQAoAAAAAIAAAAA"},
    {"connection": "Upgrade", "upgrade": "websocket", **WEBSOCKET},
    {"connection": "upgrade", "upgrade": "TLS/1.0, HTTP/1.1"},
    {"upgrade": "h2c"},
    {"connection": "upgrade"},
    {"connection": "upgrade, close", "upgrade": "h2c"},
]


def run(server: Server, size: int, seen: Seen) -> None:
    """Make each offer with a POST and a GET, whole and in pieces, then ask again."""
    for offer in OFFERS * size:
        for request in (post(BODY, **offer), get("/health/live", **offer)):
            for middle in (len(request), len(request) - 3, 40):
                with Caller(server.port) as caller:
                    caller.send(request[:middle])
                    answer = seen.count(caller.ask(request[middle:]))
                    if "close" not in offer.get("connection", "") and answer.status == 200:
                        following = seen.count(caller.ask(post(BODY)))
                        seen.claim(f"{offer}: the next is answered", following.status == 200, following.outcome)


ATTACK = Attack(run, short=1, full=20, answers=frozenset({"200"}), answer_ms=250)
