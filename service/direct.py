"""A request that came in one piece, answered without a task: a lean ASGI server for the usual case.

Beside a model whose runs sweep the caches, each line of Python on the way of a request costs two to four times what it
costs in a loop, and a small model's run is not much longer than uvicorn's general path.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from starlette.types import Message
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

logger = logging.getLogger(__name__)

HEAD_OF_200 = STATUS_LINE[200] + b"content-length: %d\r\ncontent-type: application/json\r\nx-request-id: %b\r\n"


class NoEvent:
    """Stands where uvicorn wakes a task that waits for the body: there is none."""

    def set(self) -> None:
        """Do nothing."""


class DirectCycle:
    """One request and its answer, with what uvicorn's protocol asks of a cycle; `receive` and `send` are ASGI's.

    `finish` gets the whole answer, and whether the connection stays.
    """

    more_body = True
    disconnected = False
    response_complete = False
    message_event = NoEvent()
    _head = b""

    def __init__(self, keep_alive: bool, finish: Callable[[bytes, bool], None]) -> None:
        self.keep_alive = keep_alive
        self.pieces: list[bytes] = []
        self._finish = finish

    @property
    def body(self) -> bytes:
        """What came of the body."""
        return b"".join(self.pieces)

    async def receive(self) -> Message:
        """Return the whole body."""
        return {"type": "http.request", "body": self.body, "more_body": False}

    async def send(self, message: Message) -> None:
        """Take the head of the answer, then its body, and write both in one piece."""
        if message["type"] == "http.response.start":
            head = [STATUS_LINE[message["status"]]]
            for name, value in message["headers"]:
                if name == b"connection" and value == b"close":
                    self.keep_alive = False
                else:
                    head += (name, b": ", value, b"\r\n")
            self._head = b"".join(head)
            return
        self._respond(self._head, message["body"])

    def answer(self, body: bytes, request_id: str) -> None:
        """Write a 200 with a JSON body: what `send` does in two steps with a list of headers."""
        self._respond(HEAD_OF_200 % (len(body), request_id.encode()), body)

    def _respond(self, head: bytes, body: bytes) -> None:
        if self.disconnected:
            return
        end = b"\r\n" if self.keep_alive else b"connection: close\r\n\r\n"
        self.response_complete = True
        # The connection's cycle may be another by now: a pipelined one.
        self._finish(b"%b%b%b" % (head, end, body), self.keep_alive)


class Steps:
    """Runs a coroutine at once, up to where it waits, and on from there.

    `asyncio.Task` would begin in the loop's next turn; this cannot be cancelled, and is no `current_task`.
    """

    __slots__ = ("_coroutine", "_failed", "_loop")

    def __init__(
        self, coroutine: Coroutine[Any, Any, None], loop: asyncio.AbstractEventLoop, failed: Callable[[], None]
    ) -> None:
        self._coroutine = coroutine
        self._loop = loop
        self._failed = failed

    def step(self, _: object = None) -> None:
        """Go on until it waits for the next thing."""
        try:
            waits_for: Any = self._coroutine.send(None)
        except StopIteration:
            return
        except Exception:
            logger.exception("a bug on the way of an answer")
            self._failed()
            return
        if waits_for is None:  # asyncio.sleep(0)
            self._loop.call_soon(self.step)
        else:
            waits_for._asyncio_future_blocking = False  # as a task does; it says that someone takes care of it
            waits_for.add_done_callback(self.step)
