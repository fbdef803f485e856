"""Requests behind one with `connection: close`, or behind one whose error ends the connection.

Size: rounds. Nothing behind the last request may be answered.
"""

from tests.attacks.harness.attack import Attack, Seen
from tests.attacks.harness.requests import ask_for, get, post
from tests.attacks.harness.server import Server
from tests.attacks.harness.wire import Caller

BODY = ask_for("a good film")
LAST = [post(BODY, connection="close"), get("/health/live", connection="close"), post(b"{", connection="Close")]


def run(server: Server, size: int, seen: Seen) -> None:
    """Send a last request with another behind, in one piece and in two."""
    for last in LAST * size:
        for pieces in ([last + post(BODY)], [last, post(BODY)]):
            with Caller(server.port) as caller:
                for piece in pieces:
                    caller.send(piece)
                answer = seen.count(caller.answer())
                seen.claim("the last answer says close", answer.headers.get("connection") == "close")
                following = caller.answer()
                seen.claim("nothing behind it is answered", following.end == "closed", following.outcome)


ATTACK = Attack(run, short=2, full=50, answers=frozenset({"200", "400"}), answer_ms=250)
