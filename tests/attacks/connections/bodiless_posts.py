"""POSTs of 45 bytes without a body, pipelined; the caller reads the answers as fast as they come.

Size: requests of each connection. Each is refused at once; together they must not keep the event loop from others.
"""

from tests.attacks.harness.attack import Attack, Seen, together
from tests.attacks.harness.requests import get
from tests.attacks.harness.server import Server
from tests.attacks.harness.wire import RECEIVE_BYTES, Caller

CONNECTIONS = 4
PIECE = 1_000
REQUESTS = [b"POST /classify HTTP/1.1\r\nhost: localhost\r\n\r\n", get("/nothing")]
STATUS = b"HTTP/1.1 4"


def run(server: Server, size: int, seen: Seen) -> None:
    """Send all requests of a connection while another thread reads its answers."""

    def read(caller: Caller) -> None:
        answered, tail = 0, b""
        while answered < size:
            data = caller.socket.recv(RECEIVE_BYTES)
            if not data:
                break
            answered += (tail + data).count(STATUS)
            tail = data[-len(STATUS) + 1 :]
        seen.claim("every request gets a 4xx", answered == size, f"{answered} of {size}")

    def attack(index: int) -> None:
        with Caller(server.port) as caller:
            data = REQUESTS[index % len(REQUESTS)] * PIECE

            def send(_: object) -> None:
                for _ in range(size // PIECE):
                    caller.send(data)

            together(lambda role: role(caller), [send, read])

    together(attack, range(CONNECTIONS))


ATTACK = Attack(run, short=1_000, full=20_000, answers=frozenset())
