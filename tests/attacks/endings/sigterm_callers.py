"""SIGTERM under constant load, from callers who reuse a connection and callers who open one for each request.

Size: stops, each with one worker and with two. Whoever completed a handshake is answered, and never reset.
"""

import threading
from collections import Counter

from tests.attacks.harness.attack import Attack, Seen, together
from tests.attacks.harness.requests import ask_for, post
from tests.attacks.harness.server import Models, Server, started, wait_until
from tests.attacks.harness.wire import Caller

EACH = 8  # callers of a kind
ASKED = 100  # answers before the signal
EXIT_S = 20.0
BODY = ask_for("a good film")
KEPT, CLOSING = post(BODY), post(BODY, connection="close")


def run(server: Server, size: int, seen: Seen) -> None:
    """Stop servers of its own under load."""
    for _ in range(size):
        for workers in (1, 2):
            _stop(server.models, workers, seen)


def _stop(models: Models, workers: int, seen: Seen) -> None:
    answers: Counter[str] = Counter()
    gone = threading.Event()
    lock = threading.Lock()

    def count(kind: str, caller: Caller) -> bool:
        answer = seen.count(caller.ask(KEPT if kind == "kept" else CLOSING))
        with lock:
            answers[f"{kind} {answer.outcome}"] += 1
        return kind == "kept" and not answer.end and answer.headers.get("connection") != "close"

    def ask(kind: str) -> None:
        while not gone.is_set():
            try:
                caller = Caller(target.port)
            except ConnectionRefusedError:
                return
            with caller:
                while count(kind, caller) and not gone.is_set():
                    pass

    def signal(_: str) -> None:
        wait_until(lambda: answers.total() >= ASKED, EXIT_S)
        target.signal()
        code = target.wait(EXIT_S)
        seen.claim(f"{workers} worker(s): exit code 0 in {EXIT_S:.0f} s", code == 0, code)
        gone.set()

    with started(models, "--workers", str(workers)) as target:
        together(lambda role: signal(role) if role == "signal" else ask(role), ["signal", *["kept", "closing"] * EACH])
    for kind in ("kept", "closing"):
        lost = {
            answer: number for answer, number in answers.items() if answer.startswith(f"{kind} ") and "0" not in answer
        }
        seen.claim(f"{workers} worker(s), {kind}: nobody is reset", not lost, lost or dict(answers))


ATTACK = Attack(run, short=1, full=10, answers=frozenset({"200", "503"}), ends=True)
