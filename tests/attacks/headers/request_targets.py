"""Targets other than a path: absolute, asterisk, authority, double slashes, dots, escapes, fragments, odd hosts.

Size: rounds.
"""

from tests.attacks.harness.attack import Attack, Seen
from tests.attacks.harness.requests import ask_for, post
from tests.attacks.harness.server import Server
from tests.attacks.harness.wire import ask

BODY = ask_for("a good film")
ROUTED = ["http://x/classify", "HTTP://x:80/classify", "/classify?a=b", "/classify?"]
OTHERS = [
    *[
        "*",
        "x:443",
        "http://x",
        "http://",
        "http://x@y/classify",
        "ftp://x/classify",
        "//classify",
        "///",
        "/classify/",
    ],
    *[
        "/./classify",
        "/a/../classify",
        "/%63lassify",
        "/classify%00",
        "/classify%2f",
        "/classify#a",
        "/Classify",
        "?",
        "#",
    ],
    *[
        "/classify;a=b",
        "/%",
        "/%zz",
        "/%ff",
        "http://[::1]/classify",
        "http://[::1/classify",
        "/\\classify",
        "/~",
        "/`",
    ],
]
HOSTS = ["", "x y", "x" * 5_000, "a,b", "[::1", "x:99999", "\xff", "../.."]


def run(server: Server, size: int, seen: Seen) -> None:
    """POST to each target, and with each host."""
    for target in ROUTED * size:
        answer = seen.count(ask(server.port, post(BODY, target)))
        seen.claim(f"{target} is routed", answer.status == 200, answer.outcome)
    for target in OTHERS * size:
        seen.count(ask(server.port, post(BODY, target)))
    for host in HOSTS * size:
        seen.count(ask(server.port, post(BODY, host=host)))
    twice = post(BODY).replace(b"\r\n", b"\r\nhost: y\r\n", 1)
    seen.count(ask(server.port, twice))
    seen.count(ask(server.port, post(BODY, host=None)))


ATTACK = Attack(run, short=1, full=20, answers=frozenset({"200", "307", "400", "404", "405"}), answer_ms=250)
