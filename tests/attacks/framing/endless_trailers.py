"""A chunked body whose trailers never end, or whose chunk extensions never end, or chunk sizes of many digits.

Size: MiB that are sent at most.
"""

from collections.abc import Mapping

from tests.attacks.harness.attack import Attack, Seen, together
from tests.attacks.harness.requests import post
from tests.attacks.harness.server import Server
from tests.attacks.harness.wire import Caller

MIB = 1 << 20
TAKEN_MIB = 16  # what socket buffers hold on both sides, generously
HEAD = post(b"", content_length=None, transfer_encoding="chunked")
KINDS: Mapping[str, tuple[bytes, bytes]] = {  # how the body begins, and what comes again and again
    "many trailers": (b"1\r\n{\r\n0\r\n", b"x-trailer: some value\r\n" * (MIB // 23)),
    "one trailer": (b"1\r\n{\r\n0\r\nx: ", b"v" * MIB),
    "one trailer's name": (b"1\r\n{\r\n0\r\n", b"n" * MIB),
    "one extension": (b"1;", b"e" * MIB),
    "an extension's value": (b'1;e="', b"v" * MIB),
    "many extensions": (b"1", b";e=v" * (MIB // 4)),
    "zeros before the size": (b"", b"0" * MIB),
    "a size of many digits": (b"", b"1" * MIB),
}


def run(server: Server, size: int, seen: Seen) -> None:
    """Send each kind, all at once."""

    def attack(kind: str) -> None:
        start, piece = KINDS[kind]
        with Caller(server.port) as caller:
            caller.send(HEAD + start)
            taken = 0
            for _ in range(size):
                sent = caller.send(piece, stall_s=2, stop_when_answered=True)
                taken += sent
                if sent < len(piece):
                    break
            seen.count(caller.answer())
            seen.claim(f"{kind}: {TAKEN_MIB} MiB are taken at most", taken < TAKEN_MIB * MIB, f"{taken / MIB:.0f} MiB")

    together(attack, KINDS)


ATTACK = Attack(run, short=20, full=256, answers=frozenset({"400", "413", "431", "closed"}))
