"""Bodies that are not plain UTF-8 JSON: gzip bombs, other charsets, broken UTF-8, byte order marks, form data.

Size: rounds over the bodies.
"""

import gzip
import zlib

from tests.attacks.harness.attack import Attack, Seen
from tests.attacks.harness.requests import ask_for, post
from tests.attacks.harness.server import Server
from tests.attacks.harness.wire import ask

BODY = ask_for("a good film")
BOMB_BYTES = 20_000_000
BROKEN = [b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf8\x88\x80\x80\x80", b"\xe2\x82", b"\x80" * 100_000]
MEDIA_TYPES = [
    "text/plain",
    "",
    "application/json; charset=utf-16",
    "multipart/form-data; boundary=x",
    "a/" + "b" * 9_000,
]


def run(server: Server, size: int, seen: Seen) -> None:
    """Send each body."""
    packed = gzip.compress(ask_for("a" * BOMB_BYTES), 9)
    requests = [
        post(packed, content_encoding="gzip"),
        post(packed),
        post(zlib.compress(BODY), content_encoding="deflate"),
        post(gzip.compress(BODY), content_encoding="gzip, gzip"),
        *[post(b'{"inputs": "' + broken + b'"}') for broken in BROKEN],
        *[post(BODY.decode().encode(charset)) for charset in ("utf-16", "utf-32", "utf-8-sig")],
        *[post(BODY, content_type=media_type) for media_type in MEDIA_TYPES],
        post(BODY, content_type=None),
    ]
    for request in requests * size:
        seen.count(ask(server.port, request))


ATTACK = Attack(run, short=1, full=10, answers=frozenset({"200", "400", "413", "415", "422"}), answer_ms=250)
