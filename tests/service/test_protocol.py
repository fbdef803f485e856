"""Claims about connections: who idles or dribbles is closed in time, pipelined requests keep their order.

The transport and the event loop's clock are fakes; the protocol, and in the end the application, are real.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from service.app import create_app
from service.settings import Settings
from tests.service.wire import ClockLoop, Connection, Site, request

HEADER_TIMEOUT_S = 4
KEEP_ALIVE_S = 75
GET = b"GET /elsewhere HTTP/1.1\r\nhost: x\r\n\r\n"
Check = Callable[[Connection, "Backstage", ClockLoop], Coroutine[Any, Any, None]]


class Backstage:
    """An application that answers a request when told, with the path and the request's id."""

    def __init__(self) -> None:
        self.site = Site(self, {"/classify": self}, HEADER_TIMEOUT_S, KEEP_ALIVE_S)
        self.asked: list[str] = []
        self.holds = False
        self._held: list[asyncio.Future[None]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Be the ASGI application."""
        await receive()
        name = dict(scope["headers"]).get(b"x-request-id", b"?").decode()
        self.asked.append(f"{scope['path']} {name}")
        if self.holds:
            held = asyncio.get_running_loop().create_future()
            self._held.append(held)
            await held
        body = self.asked[-1].encode() if not self.holds else b"held"
        headers = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def answer_next(self) -> None:
        """Let the first of the held requests go."""
        self._held.pop(0).set_result(None)


def on_a_connection(check: Check) -> None:
    """Run a check with a connection, the application behind it and the loop; nothing is left afterwards."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, ClockLoop)
        backstage = Backstage()
        connection = backstage.site.connect()
        await check(connection, backstage, loop)
        await connection.hang_up()
        state = backstage.site.state
        assert (len(state.connections), len(state.tasks), loop.timers) == (0, 0, 0)

    with asyncio.Runner(loop_factory=ClockLoop) as runner:
        runner.run(main())


@pytest.mark.parametrize("ask", [request(), GET], ids=["direct", "by uvicorn"])
def test_an_idle_connection_is_closed_the_keep_alive_time_after_its_last_answer(ask: bytes) -> None:
    async def check(connection: Connection, _: Backstage, loop: ClockLoop) -> None:
        await connection.send(ask)
        await loop.pass_time(50)
        await connection.send(ask)
        await loop.pass_time(KEEP_ALIVE_S - 1)
        assert connection.statuses == [200, 200]
        assert connection.closed_at is None
        await loop.pass_time(1)
        assert connection.closed_at == 50 + KEEP_ALIVE_S

    on_a_connection(check)


@pytest.mark.parametrize("ask", [request(), GET], ids=["direct", "by uvicorn"])
def test_a_connection_whose_answer_takes_longer_than_the_keep_alive_time_stays(ask: bytes) -> None:
    async def check(connection: Connection, backstage: Backstage, loop: ClockLoop) -> None:
        await connection.send(ask)  # so that the alarm is set
        backstage.holds = True
        await connection.send(ask)
        await loop.pass_time(2 * KEEP_ALIVE_S)
        assert connection.closed_at is None
        backstage.answer_next()
        await loop.turn()
        assert connection.statuses == [200, 200]
        await loop.pass_time(KEEP_ALIVE_S - 1)
        assert connection.closed_at is None
        await loop.pass_time(1)
        assert connection.closed_at == 3 * KEEP_ALIVE_S

    on_a_connection(check)


def test_a_connection_that_never_sends_anything_is_closed_after_the_header_timeout() -> None:
    async def check(connection: Connection, _: Backstage, loop: ClockLoop) -> None:
        await loop.pass_time(60)
        assert connection.closed_at == HEADER_TIMEOUT_S

    on_a_connection(check)


@pytest.mark.parametrize("served", [False, True], ids=["the first", "a later one"])
def test_headers_that_dribble_close_the_connection_however_steadily_they_come(served: bool) -> None:
    async def check(connection: Connection, backstage: Backstage, loop: ClockLoop) -> None:
        if served:
            await connection.send(request())
            await loop.pass_time(10)
        began = loop.time()
        for index in range(10):
            if connection.closed_at is None:
                await connection.send(request()[index : index + 1])
                await loop.pass_time(1)
        assert connection.closed_at == began + HEADER_TIMEOUT_S
        assert len(backstage.asked) == served

    on_a_connection(check)


def test_headers_that_come_in_time_are_answered_in_however_many_pieces() -> None:
    async def check(connection: Connection, backstage: Backstage, loop: ClockLoop) -> None:
        ask = request({"inputs": "a"}, x_request_id="slow")
        for index in range(len(ask)):
            await connection.send(ask[index : index + 1])
        await loop.pass_time(HEADER_TIMEOUT_S + 1)
        assert connection.closed_at is None
        assert backstage.asked == ["/classify slow"]
        assert connection.statuses == [200]

    on_a_connection(check)


MIXED = [
    request(x_request_id="first"),
    request(x_request_id="second"),
    GET,
    request(x_request_id="third"),
    request(path="/nowhere", x_request_id="fourth"),
]
IN_ORDER = ["/classify first", "/classify second", "/elsewhere ?", "/classify third", "/nowhere fourth"]


@pytest.mark.parametrize("pieces", [1, 2, 3, 5, 100])
def test_pipelined_requests_are_answered_in_their_order_each_by_its_own_headers(pieces: int) -> None:
    async def check(connection: Connection, backstage: Backstage, loop: ClockLoop) -> None:
        data = b"".join(MIXED)
        step = -(-len(data) // pieces)
        for first in range(0, len(data), step):
            await connection.send(data[first : first + step])
        await loop.turn()
        assert backstage.asked == IN_ORDER
        answers = [answer.partition(b"\r\n\r\n")[2].decode() for answer in connection.received.split(b"HTTP/1.1 ")[1:]]
        assert answers == IN_ORDER

    on_a_connection(check)


def test_a_pipelined_request_is_not_begun_before_the_one_in_front_is_answered() -> None:
    async def check(connection: Connection, backstage: Backstage, loop: ClockLoop) -> None:
        backstage.holds = True
        await connection.send(b"".join(MIXED))
        for begun in range(1, len(MIXED) + 1):
            assert backstage.asked == IN_ORDER[:begun]
            backstage.answer_next()
            await loop.turn()
        assert connection.statuses == [200] * len(MIXED)

    on_a_connection(check)


@pytest.mark.parametrize("together", [True, False])
def test_the_last_pipelined_request_may_ask_for_the_connections_end(together: bool) -> None:
    async def check(connection: Connection, backstage: Backstage, loop: ClockLoop) -> None:
        backstage.holds = True
        asks = [request(x_request_id="first"), request(x_request_id="last", connection="close")]
        for data in [b"".join(asks)] if together else asks:
            await connection.send(data)
        backstage.answer_next()
        await loop.turn()
        assert connection.closed_at is None
        backstage.answer_next()
        await loop.turn()
        assert connection.statuses == [200, 200]
        assert connection.closed_at is not None

    on_a_connection(check)


def on_the_real_application(models: Path, check: Callable[[Site, ClockLoop], Awaitable[None]]) -> None:
    """Run a check with connections to the application as it is served."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, ClockLoop)
        app = create_app(Settings(models=models, default_timeout_ms=5000))
        async with app.router.lifespan_context(app):
            await check(Site(app, app.inference, HEADER_TIMEOUT_S, KEEP_ALIVE_S), loop)

    with asyncio.Runner(loop_factory=ClockLoop) as runner:
        runner.run(main())


@pytest.mark.parametrize("sent", [0, 5], ids=["nothing of it", "a part of it"])
def test_a_body_that_does_not_come_in_time_is_504(models: Path, sent: int) -> None:
    async def check(site: Site, loop: ClockLoop) -> None:
        connection = site.connect()
        ask = request({"inputs": "a good film"})
        head = ask.index(b"\r\n\r\n") + 4
        await connection.send(ask[:head])
        await loop.pass_time(3)
        if sent:
            await connection.send(ask[head : head + sent])
        await loop.pass_time(1)
        assert connection.received == b""
        await loop.pass_time(1.5)
        assert connection.statuses == [504]
        assert b"deadline-exceeded" in connection.received

    on_the_real_application(models, check)


def test_a_body_that_comes_in_time_is_answered_in_however_many_pieces(models: Path) -> None:
    async def check(site: Site, loop: ClockLoop) -> None:
        connection = site.connect()
        ask = request({"inputs": "a good film"})
        for index in range(len(ask)):
            await connection.send(ask[index : index + 1])
        for _ in range(100_000):  # a runner thread computes it
            if connection.statuses:
                break
            await loop.turn()
        assert connection.statuses == [200]

    on_the_real_application(models, check)
