"""A request line or headers that never end: one value, one name, many headers, a path, leading blank lines.

Size: MiB that are sent at most. The server must stop reading, answer, and hang up.
"""

from collections.abc import Mapping

from tests.attacks.harness.attack import Attack, Seen, together
from tests.attacks.harness.server import Server
from tests.attacks.harness.wire import Caller

MIB = 1 << 20
TAKEN_MIB = 16  # what socket buffers hold on both sides, generously
START = b"POST /classify HTTP/1.1\r\nhost: x\r\n"
KINDS: Mapping[str, tuple[bytes, bytes]] = {  # how it begins, and what comes again and again
    "value": (START + b"x: ", b"v" * MIB),
    "name": (START, b"n" * MIB),
    "many": (START, b"x-header: some value\r\n" * (MIB // 22)),
    "many of the shortest": (START, b"a:\r\n" * (MIB // 4)),
    "path": (b"GET /", b"p" * MIB),
    "query": (b"GET /health/live?", b"q&" * (MIB // 2)),
    "method": (b"", b"M" * MIB),
    "blank lines": (b"", b"\r\n" * (MIB // 2)),
}


def run(server: Server, size: int, seen: Seen) -> None:
    """Send each kind, all at once."""

    def attack(kind: str) -> None:
        start, piece = KINDS[kind]
        with Caller(server.port) as caller:
            caller.send(start)
            taken = 0
            for _ in range(size):
                sent = caller.send(piece, stall_s=2, stop_when_answered=True)
                taken += sent
                if sent < len(piece):
                    break
            seen.count(caller.answer())
            seen.claim(f"{kind}: {TAKEN_MIB} MiB are taken at most", taken < TAKEN_MIB * MIB, f"{taken / MIB:.0f} MiB")
            seen.claim(f"{kind}: hung up", caller.closed(within_s=5))

    together(attack, KINDS)


ATTACK = Attack(run, short=20, full=256, answers=frozenset({"400", "414", "431", "closed"}))
