"""Texts of 64 KB that grow when normalised or split: ligatures, combining marks, characters that are whole words.

Size: rounds over the texts.
"""

from tests.attacks.harness.attack import Attack, Seen
from tests.attacks.harness.requests import ask_for, post
from tests.attacks.harness.server import Server
from tests.attacks.harness.wire import ask

TEXT_BYTES = 65_000
PIECES = ["\ufdfa", "e\u0301", "\u0301", "\u4e00", "\u200d", "\u1e9e", "\uac00", ".", "a.", "\u00a0", "[SEP]", "\x00"]


def run(server: Server, size: int, seen: Seen) -> None:
    """Send each piece over and over as one text, which may be cut or not."""
    for _ in range(size):
        for piece in PIECES:
            text = piece * (TEXT_BYTES // len(piece.encode()))
            for truncate in (True, False):
                seen.count(ask(server.port, post(ask_for(text, truncate=truncate))))


ATTACK = Attack(run, short=1, full=4, answers=frozenset({"200", "413", "422"}), answer_ms=250)
