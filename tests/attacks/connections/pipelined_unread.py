"""An endless pipeline of good requests whose answers nobody reads.

Size: MiB that each connection sends at most. The server must stop reading while its answers wait.
"""

from tests.attacks.harness.attack import Attack, Seen, together
from tests.attacks.harness.requests import ask_for, get, post
from tests.attacks.harness.server import Server
from tests.attacks.harness.wire import Caller

MIB = 1 << 20
TAKEN_MIB = 16  # what socket buffers hold on both sides, generously
READ = 20
REQUESTS = [post(ask_for("a good film")), post(b'{"inputs": []}'), get("/health/live"), get("/models")]


def run(server: Server, size: int, seen: Seen) -> None:
    """Send until nothing is taken, then read a few answers, and reset the connection."""

    def attack(request: bytes) -> None:
        piece = request * (MIB // len(request))
        taken = 0
        with Caller(server.port, receive_bytes=4096) as caller:
            for _ in range(size):
                sent = caller.send(piece, stall_s=2)
                taken += sent
                if sent < len(piece):
                    break
            seen.claim(f"{request[:14]!r}: {TAKEN_MIB} MiB are taken at most", taken < TAKEN_MIB * MIB, taken // MIB)
            for _ in range(READ):
                seen.count(caller.answer())
            caller.reset()

    together(attack, REQUESTS)


ATTACK = Attack(run, short=20, full=256, answers=frozenset({"200", "422", "429"}))
