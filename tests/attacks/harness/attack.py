"""An attack: what it does, what it may cost, and what it saw."""

import importlib
import pkgutil
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

import tests.attacks
from tests.attacks.harness.answer import Answer
from tests.attacks.harness.server import Server
from tests.attacks.harness.wire import ask

MEMORY_MIB = 100
LEFT_MIB = 50
HOLD_UP_MS = 250
BACK_S = 10.0
PATIENCE = 3  # answers that never come before an attack gives up

Item = TypeVar("Item")
Result = TypeVar("Result")


class GivenUpError(Exception):
    """The server does not answer any more."""


@dataclass(frozen=True)
class Claim:
    """Something that must hold, and what was measured."""

    text: str
    holds: bool
    measured: str = ""


@dataclass
class Seen:
    """What an attack saw: how each request ended, and claims of its own. Threads may share it."""

    answers: Counter[str] = field(default_factory=Counter)
    claims: list[Claim] = field(default_factory=list)
    slowest_ms: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, answer: Answer) -> Answer:
        """Count how one request ended; raises GivenUpError when the server has gone silent."""
        with self._lock:
            self.answers[answer.outcome] += 1
            self.slowest_ms = max(self.slowest_ms, answer.wait_ms)
            if self.answers["silence"] >= PATIENCE:
                raise GivenUpError(f"no answer to {PATIENCE} requests")
        return answer

    def claim(self, text: str, holds: bool, measured: object = "") -> None:
        """Add a claim."""
        self.claims.append(Claim(text, holds, str(measured)))


@dataclass(frozen=True)
class Attack:
    """An attack in its two sizes (requests, connections or MiB, as its file says) and what it may cost.

    Memory is over the server's resting size; others are held up when `/health/live` or a short text waits longer.
    """

    run: Callable[[Server, int, Seen], None]
    short: int
    full: int
    answers: frozenset[str]
    probes: frozenset[str] = frozenset({"200"})  # what other callers may get meanwhile
    memory_mib: float = MEMORY_MIB
    hold_up_ms: float = HOLD_UP_MS
    answer_ms: float | None = None  # until the attacker's own answers
    options: tuple[str, ...] = ()  # of the server
    ends: bool = False  # it starts and stops servers of its own

    @property
    def name(self) -> str:
        """The file's name."""
        return self.run.__module__.rpartition(".")[2]

    @property
    def what(self) -> str:
        """The first line of the file."""
        module = importlib.import_module(self.run.__module__)
        return (module.__doc__ or "").partition("\n")[0]


def all_attacks() -> Mapping[str, Attack]:
    """Every attack by name: `ATTACK` in the modules of the rooms."""
    found = {}
    for info in pkgutil.walk_packages(tests.attacks.__path__, "tests.attacks."):
        if info.name.count(".") == 3 and ".harness." not in info.name:
            attack = getattr(importlib.import_module(info.name), "ATTACK", None)
            if isinstance(attack, Attack):
                found[attack.name] = attack
    return found


def together(function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """Call a function for all items at once, each in a thread of its own."""
    listed = list(items)
    with ThreadPoolExecutor(max_workers=max(1, len(listed))) as pool:
        return list(pool.map(function, listed))


def at_once(server: Server, seen: Seen, data: bytes, size: int) -> None:
    """Send the same request on `size` connections at once, and count the answers."""
    together(lambda _: seen.count(ask(server.port, data)), range(size))
