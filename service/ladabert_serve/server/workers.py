"""Several worker processes on one port: started, replaced when they die, stopped together."""

import contextlib
import logging
import math
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Collection
from dataclasses import dataclass, replace
from multiprocessing import connection
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import NamedTuple

from ladabert_serve.errors import StartError
from ladabert_serve.models.repository import Action, Repository
from ladabert_serve.models.watch import FolderWatch
from ladabert_serve.observability.logs import configure_logging
from ladabert_serve.observability.tallies import SharedTallies
from ladabert_serve.server.changes import Answer, Ask, Changes, Command, Done, Relay
from ladabert_serve.server.listener import Listeners
from ladabert_serve.server.server import announcement, run_server
from ladabert_serve.settings import Settings

logger = logging.getLogger(__name__)

START_FAILED = 1
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0
SETTLED_S = 60.0  # a worker that lived longer did not fail because of its start
KILL_AFTER_S = 2.0  # beyond the grace period: a worker that has not ended by then hangs


class Restarts:
    """When to restart workers that ended: after a pause, which grows while a worker keeps ending early."""

    def __init__(self) -> None:
        self._pauses: dict[int, float] = {}
        self._due: dict[int, float] = {}

    def ended(self, place: int, lived_s: float, now: float) -> float:
        """Record that the worker of a place ended, and return the seconds until the next start."""
        growing = min(LONGEST_PAUSE_S, 2 * self._pauses.get(place, FIRST_PAUSE_S / 2))
        pause = FIRST_PAUSE_S if lived_s >= SETTLED_S else growing
        self._pauses[place] = pause
        self._due[place] = now + pause
        return pause

    def take(self, now: float) -> list[int]:
        """Return the places to start a worker for, each once."""
        due = [place for place, moment in self._due.items() if moment <= now]
        for place in due:
            del self._due[place]
        return due

    def wait_s(self, now: float) -> float | None:
        """Return the seconds until `take` has something, None for never."""
        return max(0.0, min(self._due.values()) - now) if self._due else None


class Message(NamedTuple):
    """A worker's first report: that it serves, with the announcement, or why it cannot start."""

    serves: bool
    text: str
    default: str = ""  # the model that answers requests which name none


@dataclass(slots=True)
class Worker:
    """One running process."""

    process: SpawnProcess
    started_at: float
    messages: Connection | None  # None once nothing can come any more
    failure: str = ""


class Supervisor:
    """Keeps a worker running at every place until a signal; one loop decides everything, signal handlers nothing."""

    def __init__(self, settings: Settings, listeners: Listeners) -> None:
        self._settings = settings
        self._listeners = listeners
        self._context = multiprocessing.get_context("spawn")
        self._tallies = SharedTallies(settings.workers)
        self._workers: dict[int, Worker] = {}  # by place
        self._restarts = Restarts()
        self._changes = Changes(self._send, lambda: tuple(self._workers))
        self._watch = FolderWatch(settings.models) if settings.watch else None
        self._look_at = time.monotonic() + settings.watch_interval_s
        self._served = False  # whether a worker ever did
        self._signalled = False
        self._kill_at: float | None = None  # once it stops
        self._refuse_at = math.inf  # then, while workers still accept who has come
        self._exit_code = 0

    @property
    def _stopping(self) -> bool:
        return self._kill_at is not None

    def run(self) -> int:
        """Serve until SIGTERM or SIGINT; return the exit code."""
        wake, woken = socket.socketpair()  # a signal that comes just before the wait must end it
        with wake, woken:
            wake.setblocking(False)
            signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, self._note_signal)
            for place in range(self._settings.workers):
                self._start(place)
            while self._workers or not self._stopping:
                self._wait(woken)
                self._step()
            signal.set_wakeup_fd(-1)
        self._listeners.close()
        return self._exit_code

    def _note_signal(self, *_: object) -> None:
        self._signalled = True

    def _wait(self, woken: socket.socket) -> None:
        """Wait until a signal, a message, the end of a worker, or the time to start or kill one."""
        waiting: list[Connection | socket.socket | int] = [woken]
        for worker in self._workers.values():
            waiting.append(worker.process.sentinel)
            if worker.messages is not None:
                waiting.append(worker.messages)
        now = time.monotonic()
        if self._kill_at is not None:
            moments = [min(self._kill_at, self._refuse_at) - now]
        else:
            moments = [wait_s for wait_s in (self._restarts.wait_s(now),) if wait_s is not None]
            moments += [self._look_at - now] if self._watch is not None else []
        if woken in connection.wait(waiting, max(0.0, min(moments)) if moments else None):
            woken.recv(4096)

    def _step(self) -> None:
        if self._signalled and not self._stopping:
            self._stop()
        for place, worker in list(self._workers.items()):
            ended = not worker.process.is_alive()  # before its message is looked for: none comes after it
            while worker.messages is not None and worker.messages.poll():
                self._read_message(place, worker, worker.messages)
            if ended:
                del self._workers[place]
                self._replace(place, worker)
        if self._kill_at is None:
            for place in self._restarts.take(time.monotonic()):
                self._start(place)
            self._look()
            return
        if time.monotonic() >= self._refuse_at:
            self._refuse_at = math.inf
            self._listeners.refuse()
            self._listeners.close()  # else callers would queue where nobody answers
        if time.monotonic() >= self._kill_at:
            self._kill()

    def _look(self) -> None:
        """Let the workers load and unload what changed in the models folder, where that is wanted and due."""
        now = time.monotonic()
        if self._watch is None or now < self._look_at:
            return
        self._look_at = now + self._settings.watch_interval_s
        changes = self._watch.look()
        asked: list[tuple[Action, str]] = [("load", name) for name in changes.load]
        asked += [("unload", name) for name in changes.unload]
        for action, name in asked:
            self._changes.ask(None, Ask(0, action, name))

    def _send(self, place: int, message: Command | Answer) -> None:
        worker = self._workers.get(place)
        if worker is not None and worker.messages is not None:
            with contextlib.suppress(OSError):  # it has ended, which is noticed next
                worker.messages.send(message)

    def _start(self, place: int) -> None:
        messages, sender = self._context.Pipe()
        listeners = replace(self._listeners, shared=True)
        unloaded = frozenset(self._changes.unloaded)
        arguments = (self._settings, listeners, self._tallies, place, sender, unloaded)
        process = self._context.Process(target=_work, args=arguments, name="worker", daemon=True)
        now = time.monotonic()
        try:
            process.start()
        except OSError as error:
            messages.close()
            pause_s = self._restarts.ended(place, 0.0, now)
            logger.error("a worker cannot be started: %s; the next try is in %g s", error, pause_s)
        else:
            self._workers[place] = Worker(process, now, messages)
        finally:
            sender.close()  # so that the worker's end is the only one

    def _read_message(self, place: int, worker: Worker, messages: Connection) -> None:
        try:
            message: Message | Ask | Done = messages.recv()
        except (EOFError, OSError):  # it was killed in the middle of it
            messages.close()
            worker.messages = None
            return
        if isinstance(message, Ask):
            self._changes.ask(place, message)
        elif isinstance(message, Done):
            self._changes.done(place, message.error)
        elif not message.serves:
            worker.failure = message.text
        elif not self._served:
            self._served = True
            self._settings = self._settings.model_copy(update={"default_model": message.default})
            sys.stdout.write(message.text + "\n")
            sys.stdout.flush()

    def _replace(self, place: int, worker: Worker) -> None:
        """Note that a worker ended and start another one later, unless the server stops or cannot start."""
        self._tallies.everyone[place].end()
        if worker.messages is not None:
            worker.messages.close()
        if self._stopping:
            return
        self._changes.lost(place)
        code = worker.process.exitcode
        if code == START_FAILED and not self._served:
            if worker.failure:  # else it has left a traceback
                sys.stderr.write(f"ladabert-serve: {worker.failure}\n")
                sys.stderr.flush()
            self._exit_code = START_FAILED
            self._stop()
            return
        now = time.monotonic()
        pause_s = self._restarts.ended(place, now - worker.started_at, now)
        reason = f" ({worker.failure})" if worker.failure else ""
        logger.error(
            "worker %s ended with exit code %s%s and is replaced in %g s", worker.process.pid, code, reason, pause_s
        )

    def _stop(self) -> None:
        self._changes.stop()
        self._refuse_at = time.monotonic() + self._settings.drain_s
        self._kill_at = time.monotonic() + _longest_end_s(self._settings)
        for worker in self._workers.values():
            worker.process.terminate()

    def _kill(self) -> None:
        for worker in self._workers.values():
            logger.error("worker %s has not ended within the grace period and is killed", worker.process.pid)
            worker.process.kill()
        self._exit_code = 1
        self._kill_at = time.monotonic() + KILL_AFTER_S


def _work(
    settings: Settings,
    listeners: Listeners,
    tallies: SharedTallies,
    place: int,
    messages: Connection,
    unloaded: Collection[str],
) -> None:
    """Serve as one worker process."""
    configure_logging(settings)
    threading.Thread(target=_end_with_parent, args=(settings,), name="parent-watch", daemon=True).start()

    def tell(registry: Repository) -> None:
        send(Message(True, announcement(settings, registry, listeners), registry.default))
        registry.relay = Relay(messages, registry).ask

    def send(message: Message) -> None:
        with contextlib.suppress(BrokenPipeError):  # when the supervisor has ended
            messages.send(message)

    try:
        run_server(settings, listeners, tell, tallies.of_worker(place), unloaded)
    except StartError as error:
        send(Message(False, str(error)))
        sys.exit(START_FAILED)


def _longest_end_s(settings: Settings) -> float:
    """Return the seconds from a signal after which a worker that has not ended hangs."""
    return settings.drain_s + settings.grace_period_s + KILL_AFTER_S


def _end_with_parent(settings: Settings) -> None:
    """Stop this process as a signal would when its supervisor has ended, and end it when that takes too long."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait(_longest_end_s(settings))
    os._exit(1)
