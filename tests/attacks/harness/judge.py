"""Runs one attack on a server and says what held: answers, other callers, memory, nothing lost, no traceback."""

import threading
from collections.abc import Callable
from dataclasses import dataclass

from tests.attacks.harness.attack import BACK_S, LEFT_MIB, Attack, Claim, GivenUpError, Seen
from tests.attacks.harness.prober import SHORT_TEXT, Waits, probing
from tests.attacks.harness.requests import ask_for, post
from tests.attacks.harness.server import Server, wait_until
from tests.attacks.harness.wire import Caller

SAMPLE_S = 0.02
OTHERS = 8  # descriptors that come and go for other reasons
WARM_UP = ask_for(["a good film " * 200] * 32)


@dataclass(frozen=True)
class Verdict:
    """What came of one attack."""

    name: str
    claims: list[Claim]
    answers: dict[str, int]
    memory_mib: float
    waits_ms: dict[str, float]

    @property
    def complaints(self) -> list[str]:
        """A line for each claim that did not hold."""
        return [f"{claim.text}: {claim.measured}" for claim in self.claims if not claim.holds]


class Sampler(threading.Thread):
    """Remembers the most of a number that changes all the time."""

    def __init__(self, read: Callable[[], float]) -> None:
        super().__init__(daemon=True)
        self.most = read()
        self._read = read
        self._done = threading.Event()

    def run(self) -> None:
        """Read until stopped."""
        while not self._done.wait(SAMPLE_S):
            self.most = max(self.most, self._read())

    def stop(self) -> float:
        """Return the most."""
        self._done.set()
        self.join()
        return self.most


def judge(attack: Attack, server: Server, size: int, patience: float = 1.0) -> Verdict:
    """Attack the server while others use it, and judge the cost; every limit on a wait is multiplied by `patience`."""
    if attack.ends:
        seen = _run(attack, server, size)
        return Verdict(attack.name, [*_answers(attack, seen), *seen.claims], dict(seen.answers), 0.0, {})
    before = _resting_answer(server)
    resting_mib, resting_descriptors = server.memory_mib(), server.descriptors()
    written = len(server.log)
    sampler = Sampler(server.memory_mib)
    with probing(server.port) as probes:
        sampler.start()
        seen = _run(attack, server, size)
        back = wait_until(lambda: server.memory_mib() <= resting_mib + LEFT_MIB, BACK_S)
        idle = wait_until(lambda: _in_progress(server) == 0, BACK_S)
        cost_mib = sampler.stop() - resting_mib
        left_mib = server.memory_mib() - resting_mib
    closed = wait_until(lambda: server.descriptors() <= resting_descriptors + OTHERS, BACK_S)
    log = server.log[written:]
    claims = [
        *_answers(attack, seen),
        *seen.claims,
        *_slowest(attack, seen, patience),
        *[_waits(attack, kind, waits, patience) for kind, waits in probes.waits.items()],
        Claim(f"memory grows by at most {attack.memory_mib:.0f} MiB", cost_mib <= attack.memory_mib, f"{cost_mib:.0f}"),
        Claim(f"and is back in {BACK_S:.0f} s", back, f"{left_mib:.0f} MiB left"),
        Claim("nothing admitted is left without an answer", idle),
        Claim("no connection is left open", closed, f"{server.descriptors() - resting_descriptors} descriptors"),
        Claim("the log holds no traceback", "Traceback" not in log, _last_line(log)),
        Claim("the server lives and answers as before", server.alive and _resting_answer(server) == before),
    ]
    waits_ms = {kind: waits.worst_ms for kind, waits in probes.waits.items()}
    return Verdict(attack.name, claims, dict(seen.answers), cost_mib, waits_ms)


def _run(attack: Attack, server: Server, size: int) -> Seen:
    seen = Seen()
    try:
        attack.run(server, size, seen)
    except (OSError, GivenUpError) as error:
        seen.claim("the attack is answered to its end", False, f"{type(error).__name__}: {error}")
    return seen


def _answers(attack: Attack, seen: Seen) -> list[Claim]:
    wrong = {outcome: number for outcome, number in seen.answers.items() if outcome not in attack.answers}
    return [Claim(f"answers are {', '.join(sorted(attack.answers))}", not wrong, str(wrong or dict(seen.answers)))]


def _slowest(attack: Attack, seen: Seen, patience: float) -> list[Claim]:
    if attack.answer_ms is None:
        return []
    limit_ms = attack.answer_ms * patience
    return [Claim(f"each is answered in {limit_ms:.0f} ms", seen.slowest_ms <= limit_ms, f"{seen.slowest_ms:.0f} ms")]


def _waits(attack: Attack, kind: str, waits: Waits, patience: float) -> Claim:
    hold_up_ms = attack.hold_up_ms * patience
    wrong = {answer: number for answer, number in waits.answers.items() if answer not in attack.probes}
    text = f"{kind}: others get {', '.join(sorted(attack.probes))} within {hold_up_ms:.0f} ms"
    measured = f"{waits.worst_ms:.0f} ms" + (f", {wrong}" if wrong else "")
    return Claim(text, waits.worst_ms <= hold_up_ms and not wrong, measured)


def _last_line(log: str) -> str:
    """The line in which the first traceback ends."""
    ends = (line for line in log.partition("Traceback")[2].splitlines()[1:] if line and not line.startswith(" "))
    return next(ends, "")


def _in_progress(server: Server) -> float:
    try:
        return server.metrics().get("ladabert_requests_in_progress", -1.0)
    except (OSError, ValueError):
        return -1.0


def _resting_answer(server: Server) -> str:
    """Let the server reach its working size, and return its answer to the short text."""
    try:
        with Caller(server.port) as caller:
            caller.ask(post(WARM_UP))
            answer = caller.ask(post(SHORT_TEXT))
    except OSError as error:
        return type(error).__name__
    return str(answer.predictions) if answer.status == 200 else answer.outcome
