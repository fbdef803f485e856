"""A text whose row always fails in the model, sent among many good texts.

Size: poisoned texts. Only their caller gets 503, and the model stays ready. It uses a tiny model that can be poisoned.
"""

import tempfile
import threading
from pathlib import Path

from tests.attacks.harness.attack import Attack, Seen, together
from tests.attacks.harness.requests import ask_for, post
from tests.attacks.harness.server import Models, Server, started
from tests.attacks.harness.wire import Caller
from tests.service.tiny_artefact import write_artefact

GOOD_CALLERS = 8
GOOD, POISONED = post(ask_for(["a good film"] * 20)), post(ask_for("a bad film"))


def run(server: Server, size: int, seen: Seen) -> None:
    """Send poisoned texts to a server of its own while others ask good ones."""
    done = threading.Event()
    good: list[str] = []
    poisoned: list[str] = []

    def ask(role: int) -> None:
        with Caller(target.port) as caller:
            if role == 0:
                poisoned.extend(seen.count(caller.ask(POISONED)).outcome for _ in range(size))
                done.set()
            while not done.is_set():
                good.append(seen.count(caller.ask(GOOD)).outcome)

    with tempfile.TemporaryDirectory() as folder:
        models = Path(folder)
        write_artefact(models, poison="bad")
        with started(Models(models, pair=""), "--runners", "1") as target:
            together(ask, range(1 + GOOD_CALLERS))
            ready = target.get("/health/ready")[0]
    seen.claim("good texts get 200", set(good) == {"200"}, f"{good.count('503')} of {len(good)} got 503")
    seen.claim("poisoned ones get 503", set(poisoned) == {"503"}, set(poisoned))
    seen.claim("the model stays ready", ready == 200, ready)


ATTACK = Attack(run, short=20, full=500, answers=frozenset({"200", "503"}), ends=True)
