"""Guessed API keys: nearly right, 30 KB long, not ASCII, empty, hundreds of headers, the stored hash itself.

Size: rounds. A guess is refused before its body is read, and the right key is let in at once afterwards.
"""

from ladabert_serve.http.api_keys import format_line, hash_key
from tests.attacks.harness.attack import Attack, Seen
from tests.attacks.harness.requests import ask_for
from tests.attacks.harness.server import Server
from tests.attacks.harness.wire import Caller

KEY = "ladabert_" + "k" * 43
BODY = ask_for("a good film")
GUESSES: list[bytes] = [
    b"",
    *[(KEY[:place] + "x" + KEY[place + 1 :]).encode() for place in (0, 20, len(KEY) - 1)],
    KEY[:-1].encode(),
    KEY.encode() * 2,
    hash_key(KEY.encode()).hex().encode(),
    b"k" * 30_000,
    b"\xff" * 43,
    "ключ".encode() * 8,
    b"a, Bearer " + KEY.encode(),
]
HEADERS = [b"authorization: Bearer %b", b"authorization: Basic %b", b"authorization: %b", b"x-api-key: %b"]


def run(server: Server, size: int, seen: Seen) -> None:
    """Send each guess in each header, many headers at once, and then the right key."""
    many = b"\r\n".join(b"authorization: Bearer %d" % number for number in range(500))
    lines = [many, b"accept: */*", *[header % guess for header in HEADERS for guess in GUESSES]]
    for line in lines * size:
        with Caller(server.port) as caller:
            answer = seen.count(caller.ask(_post(line)))
        seen.claim(f"{line[:40]!r} is refused", answer.outcome == "401", answer.outcome)
    with Caller(server.port) as caller:
        answer = caller.ask(_post(b"authorization: Bearer " + KEY.encode()))
    seen.claim("the right key is let in", answer.outcome == "200", answer.outcome)


def _post(line: bytes) -> bytes:
    head = b"POST /classify HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n" + line
    return head + b"\r\ncontent-length: %d\r\n\r\n" % len(BODY) + BODY


ATTACK = Attack(
    run,
    short=1,
    full=100,
    answers=frozenset({"401"}),
    probes=frozenset({"200", "401"}),  # these callers have no key
    answer_ms=250,
    options=("--api-keys", format_line("team", KEY, ["classify"])),
)
