"""Many models that do not exist, each named once, in bodies and in paths.

Size: names. The metrics' series must stay the same, or the names fill the memory of whoever scrapes.
"""

from tests.attacks.harness.attack import Attack, Seen
from tests.attacks.harness.requests import ask_for, get, post
from tests.attacks.harness.server import Server
from tests.attacks.harness.wire import Caller


def run(server: Server, size: int, seen: Seen) -> None:
    """Name unknown models."""
    before = server.metrics().keys()
    with Caller(server.port) as caller:
        for index in range(size):
            seen.count(caller.ask(post(ask_for("a", model=f"nobody-{index}"))))
            seen.count(caller.ask(get(f"/models/nobody-{index}")))
            seen.count(caller.ask(get(f"/nowhere-{index}")))
    after = server.metrics().keys()
    seen.claim("no series appears or disappears", before == after, sorted(before ^ after)[:3])


ATTACK = Attack(run, short=100, full=3_000, answers=frozenset({"404"}))
