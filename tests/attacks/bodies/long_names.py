"""Very long names of models (in bodies and paths) and request ids, some with characters that break lines.

Size: rounds. An answer must not hand back what is long or breaks its headers.
"""

from tests.attacks.harness.attack import Attack, Seen
from tests.attacks.harness.requests import ask_for, get, post
from tests.attacks.harness.server import Server
from tests.attacks.harness.wire import ask

ANSWER_BYTES = 4_096
NAMES = ["m" * 60_000, "m\r\nset-cookie: a=b", "../../etc/passwd", "%2e%2e%2f", "m\x00", "\u202e", "<script>", "m\n"]
IDS = ["i" * 20_000, "i" * 300, "a b", '"', "\x7f", "\xff", "i\t", "<b>", ""]
PATHS = ["/models/" + "m" * 20_000, "/models/%00", "/models/%0d%0aset-cookie:a", "/models/..%2f..", "/models/%ff"]


def run(server: Server, size: int, seen: Seen) -> None:
    """Send each name, path and id."""
    body = ask_for("a")
    requests = [
        *[post(ask_for("a", model=name)) for name in NAMES],
        *[get(path) for path in PATHS],
        *[post(body, x_request_id=sent) for sent in IDS],
    ]
    answers = [seen.count(ask(server.port, request)) for request in requests * size]
    ids = [answer.headers.get("x-request-id", "") for answer in answers]
    largest = max(len(answer.body) for answer in answers)
    seen.claim("no answer carries a caller's header", not any("set-cookie" in answer.headers for answer in answers))
    seen.claim("every id is printable and short", all(sent.isprintable() and 0 < len(sent) <= 200 for sent in ids))
    seen.claim(f"no answer is over {ANSWER_BYTES} bytes", largest <= ANSWER_BYTES, largest)


ATTACK = Attack(run, short=1, full=20, answers=frozenset({"200", "400", "404", "413", "422"}))
