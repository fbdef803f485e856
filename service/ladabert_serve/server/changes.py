"""Changes of the model repository in every worker: what the supervisor decides, and what a worker does about it.

A model is loaded in two steps. First every worker reads, verifies and tries it; only when all have done so does each of
them serve it. If one refuses, all go on as before.
"""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Collection
from multiprocessing.connection import Connection
from typing import Literal, NamedTuple

from ladabert_serve.errors import RequestError, StartError
from ladabert_serve.models.repository import Action, Repository

logger = logging.getLogger(__name__)

Step = Literal["prepare", "commit", "discard", "remove"]
FIRST_STEP: dict[Action, Step] = {"load": "prepare", "unload": "remove"}


class Ask(NamedTuple):
    """A worker wants a change."""

    number: int
    action: Action
    name: str


class Answer(NamedTuple):
    """To the worker that asked: the change was made, or why it was refused."""

    number: int
    error: str


class Command(NamedTuple):
    """To every worker."""

    step: Step
    name: str
    reason: str = ""


class Done(NamedTuple):
    """A worker has done what it was told, or why it cannot."""

    error: str


class Changes:
    """One change after the other; workers are known by their places. `send` gives a worker a message."""

    def __init__(self, send: Callable[[int, Command | Answer], None], workers: Callable[[], Collection[int]]) -> None:
        self.unloaded: set[str] = set()  # a worker that starts is not to load these
        self._send = send
        self._workers = workers
        self._waiting: deque[tuple[int | None, Ask]] = deque()  # the first one is being made
        self._step: Step | None = None
        self._told: set[int] = set()  # workers that were told to do the step, and have not ended
        self._busy: set[int] = set()  # those of them that have not done it
        self._errors: list[str] = []

    def ask(self, place: int | None, ask: Ask) -> None:
        """Make a change for a worker, or for nobody, as soon as those before it are made."""
        self._waiting.append((place, ask))
        if self._step is None:
            self._begin(FIRST_STEP[ask.action])

    def done(self, place: int, error: str) -> None:
        """Note that a worker has done the step, or why it cannot."""
        if place in self._busy:
            if error:
                self._errors.append(error)
            self._busy.discard(place)
            self._go_on_when_done()

    def lost(self, place: int) -> None:
        """Note that a worker has ended; another will load what is there then."""
        self._told.discard(place)
        self._busy.discard(place)
        self._go_on_when_done()

    def stop(self) -> None:
        """Refuse whatever is not made yet."""
        self._told.clear()
        self._busy.clear()
        self._step = None
        while self._waiting:
            self._answer("the server is shutting down")

    def _begin(self, step: Step, reason: str = "") -> None:
        _, ask = self._waiting[0]
        self._step = step
        self._told.clear()
        if step != "discard":
            self._errors = []
        if step == "commit":
            self.unloaded.discard(ask.name)
        elif step == "remove":
            self.unloaded.add(ask.name)
        self._tell_newcomers(step, ask.name, reason)
        self._go_on_when_done()

    def _tell_newcomers(self, step: Step, name: str, reason: str = "") -> None:
        """Tell the step to every worker that has not been told."""
        newcomers = set(self._workers()) - self._told
        self._told |= newcomers
        self._busy |= newcomers
        for place in newcomers:
            self._send(place, Command(step, name, reason))

    def _go_on_when_done(self) -> None:
        if self._step == "prepare" and not self._busy and not self._errors:
            self._tell_newcomers("prepare", self._waiting[0][1].name)  # that began meanwhile, or they could not commit
        if self._step is not None and not self._busy:
            self._go_on()

    def _go_on(self) -> None:
        error = ""
        if self._errors:
            error = self._errors[0]
            if len(self._errors) < len(self._told):
                error = f"in {len(self._errors)} of {len(self._told)} workers: {error}"
        if self._step == "prepare":
            self._begin("discard" if error else "commit", error)
            return
        if self._step == "remove" and error:  # it is served still, and a worker that starts has to load it
            self.unloaded.discard(self._waiting[0][1].name)
        self._step = None
        self._answer(error)
        if self._waiting:
            self._begin(FIRST_STEP[self._waiting[0][1].action])

    def _answer(self, error: str) -> None:
        place, ask = self._waiting.popleft()
        if place is not None:
            self._send(place, Answer(ask.number, error))


class Relay:
    """A worker's end: carries its wishes to the supervisor, and out what that says."""

    def __init__(self, connection: Connection, repository: Repository) -> None:
        self._connection = connection
        self._repository = repository
        self._loop = asyncio.get_running_loop()
        self._answers: dict[int, asyncio.Future[str]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._asked = 0
        threading.Thread(target=self._listen, name="relay", daemon=True).start()

    async def ask(self, action: Action, name: str) -> None:
        """Make a change in every worker; raises StartError with the reason why it was refused."""
        self._asked += 1
        number = self._asked
        self._answers[number] = self._loop.create_future()
        try:
            self._connection.send(Ask(number, action, name))
            error = await self._answers[number]
        except OSError:
            error = "the supervisor of the workers has ended"
        finally:
            del self._answers[number]
        if error:
            raise StartError(error)

    def _listen(self) -> None:
        try:
            while True:
                self._loop.call_soon_threadsafe(self._receive, self._connection.recv())
        except (EOFError, OSError, RuntimeError):  # the supervisor or the event loop has ended
            return

    def _receive(self, message: Command | Answer) -> None:
        if isinstance(message, Command):
            task = self._loop.create_task(self._do(message))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        elif message.number in self._answers:
            self._answers[message.number].set_result(message.error)

    async def _do(self, command: Command) -> None:
        error = ""
        try:
            await self._steps(command)
        except (StartError, RequestError) as refused:
            error = str(refused)
        except Exception as bug:
            logger.exception("a bug in a change of the repository")
            error = repr(bug)
        try:
            self._connection.send(Done(error))
        except OSError:
            logger.debug("the supervisor ended before this answer")

    async def _steps(self, command: Command) -> None:
        if command.step == "prepare":
            await self._repository.prepare(command.name)
        elif command.step == "commit":
            self._repository.commit(command.name)
        elif command.step == "discard":
            self._repository.discard(command.name, command.reason)
        else:
            await self._repository.remove(command.name)
