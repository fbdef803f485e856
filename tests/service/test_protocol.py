"""Claims about connections: who idles or dribbles is closed in time, pipelined requests keep their order.

The transport and the event loop's clock are fakes, and the model runs when told; the rest is what serves.
"""

import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ladabert_serve.app import create_app
from ladabert_serve.backends.backend import FloatArray, IntArray
from ladabert_serve.models.artefact import TOKENIZER_FILE, Artefact
from ladabert_serve.models.inference import Inference
from ladabert_serve.models.tokenizer import TextTokenizer
from ladabert_serve.settings import Provider, Settings
from tests.service.wire import ClockLoop, Connection, Site, on_the_clock, request

HEADER_TIMEOUT_S = 4
KEEP_ALIVE_S = 75
BODY_TIMEOUT_S = 1000
POST = request({"inputs": "a good film"})
HEAD, _, BODY = POST.partition(b"\r\n\r\n")
HEAD += b"\r\n\r\n"
# What comes in one piece is answered directly, the rest by uvicorn.
WAYS = pytest.mark.parametrize("pieces", [[POST], [HEAD, BODY]], ids=["one piece", "two pieces"])


class Stage:
    """A served application whose runs go on one by one when told; they go on by themselves unless it `holds`."""

    def __init__(self, models: Path, loop: ClockLoop) -> None:
        self.loop = loop
        self.begun = 0
        self.holds = False
        self._goes_on = threading.Semaphore(0)
        settings = Settings(models=models, runners=1, default_timeout_ms=BODY_TIMEOUT_S * 1000)
        self.app = create_app(settings, self._load)
        self.site = Site(self.app, header_timeout_s=HEADER_TIMEOUT_S, keep_alive_s=KEEP_ALIVE_S)

    provider = "cpu"

    def run(self, input_ids: IntArray, attention_mask: IntArray, token_type_ids: IntArray) -> FloatArray:
        """Be the backend."""
        self.begun += 1
        if self.holds:
            assert self._goes_on.acquire(timeout=60)
        return np.zeros((len(input_ids), 2), dtype=np.float32)

    def go_on(self) -> None:
        """Let one run end."""
        self._goes_on.release()

    async def send(self, connection: Connection, *pieces: bytes) -> None:
        """Send a request piece by piece, and let it be answered, or at least begin."""
        begun, answered = self.begun, len(connection.statuses)
        for piece in pieces:
            await connection.send(piece)
        await self.loop.turn_until(lambda: len(connection.statuses) > answered or (self.holds and self.begun > begun))

    def _load(self, artefact: Artefact, graph_file: str, provider: Provider) -> Inference:
        return Inference(artefact, TextTokenizer(artefact.read(TOKENIZER_FILE), artefact.max_length), self)


def on_a_connection(models: Path, check: Callable[[Connection, Stage, ClockLoop], Coroutine[Any, Any, None]]) -> None:
    """Run a check with a connection, what serves it and the loop; nothing is left of the connection afterwards."""

    async def main(loop: ClockLoop) -> None:
        stage = Stage(models, loop)
        async with stage.app.router.lifespan_context(stage.app):
            connection = stage.site.connect()
            await check(connection, stage, loop)
            await connection.hang_up()
            state = stage.site.state
            assert (len(state.connections), len(state.tasks), loop.timers) == (0, 0, 0)

    on_the_clock(main)


@WAYS
def test_an_idle_connection_is_closed_the_keep_alive_time_after_its_last_answer(
    models: Path, pieces: list[bytes]
) -> None:
    async def check(connection: Connection, stage: Stage, loop: ClockLoop) -> None:
        await stage.send(connection, *pieces)
        await loop.pass_time(50)
        await stage.send(connection, *pieces)
        await loop.pass_time(KEEP_ALIVE_S - 1)
        assert connection.statuses == [200, 200]
        assert connection.closed_at is None
        await loop.pass_time(1)
        assert connection.closed_at == 50 + KEEP_ALIVE_S

    on_a_connection(models, check)


@WAYS
def test_a_connection_whose_answer_takes_longer_than_the_keep_alive_time_stays(
    models: Path, pieces: list[bytes]
) -> None:
    async def check(connection: Connection, stage: Stage, loop: ClockLoop) -> None:
        await stage.send(connection, *pieces)  # so that the alarm is set
        stage.holds = True
        await stage.send(connection, *pieces)
        await loop.pass_time(2 * KEEP_ALIVE_S)
        assert connection.closed_at is None
        stage.go_on()
        await loop.turn_until(lambda: connection.statuses == [200, 200])
        await loop.pass_time(KEEP_ALIVE_S - 1)
        assert connection.closed_at is None
        await loop.pass_time(1)
        assert connection.closed_at == 3 * KEEP_ALIVE_S

    on_a_connection(models, check)


def test_a_connection_that_never_sends_anything_is_closed_after_the_header_timeout(models: Path) -> None:
    async def check(connection: Connection, _: Stage, loop: ClockLoop) -> None:
        await loop.pass_time(60)
        assert connection.closed_at == HEADER_TIMEOUT_S

    on_a_connection(models, check)


@pytest.mark.parametrize("served", [False, True], ids=["the first", "a later one"])
def test_headers_that_dribble_close_the_connection_however_steadily_they_come(models: Path, served: bool) -> None:
    async def check(connection: Connection, stage: Stage, loop: ClockLoop) -> None:
        if served:
            await stage.send(connection, POST)
            await loop.pass_time(10)
        began_s = loop.elapsed_s
        for index in range(10):
            if connection.closed_at is None:
                await connection.send(POST[index : index + 1])
                await loop.pass_time(1)
        assert connection.closed_at == began_s + HEADER_TIMEOUT_S
        assert stage.begun == served

    on_a_connection(models, check)


def test_a_request_that_comes_byte_by_byte_but_in_time_is_answered(models: Path) -> None:
    async def check(connection: Connection, stage: Stage, loop: ClockLoop) -> None:
        await stage.send(connection, *(POST[index : index + 1] for index in range(len(POST))))
        await loop.pass_time(HEADER_TIMEOUT_S + 1)
        assert connection.closed_at is None
        assert connection.statuses == [200]

    on_a_connection(models, check)


@pytest.mark.parametrize("sent", [0, 5], ids=["nothing of it", "a part of it"])
def test_a_body_that_does_not_come_in_time_is_504(models: Path, sent: int) -> None:
    async def check(connection: Connection, _: Stage, loop: ClockLoop) -> None:
        await connection.send(HEAD)
        await loop.pass_time(3)
        if sent:
            await connection.send(BODY[:sent])
        await loop.pass_time(BODY_TIMEOUT_S - 4)
        assert connection.received == b""
        await loop.pass_time(1)
        assert connection.statuses == [504]
        assert b"deadline-exceeded" in connection.received

    on_a_connection(models, check)


def test_of_a_caller_who_hangs_up_nothing_waits_and_nobody_else_is_kept(models: Path) -> None:
    async def check(connection: Connection, stage: Stage, loop: ClockLoop) -> None:
        stage.holds = True
        await stage.send(connection, POST)  # runs
        leaver = stage.site.connect()
        await leaver.send(POST)  # is queued
        await leaver.hang_up()
        patient = stage.site.connect()
        await patient.send(POST)
        for _ in range(2):
            stage.go_on()
        await loop.turn_until(lambda: connection.statuses == patient.statuses == [200])
        assert leaver.received == b""
        assert stage.begun == 2
        await patient.hang_up()

    on_a_connection(models, check)


GET = b"GET /health/live HTTP/1.1\r\nhost: x\r\nx-request-id: %b\r\n\r\n"
MIXED = [
    request({"inputs": "a"}, x_request_id="first"),
    request({"inputs": "a good film"}, x_request_id="second"),
    GET % b"third",
    request({"inputs": "a film"}, x_request_id="fourth"),
    request({"inputs": "a"}, path="/nowhere", x_request_id="fifth"),
    request({"inputs": []}, x_request_id="sixth"),
    request({"inputs": "a"}, x_request_id="seventh"),
]
STATUSES = [200, 200, 200, 200, 404, 422, 200]
IDS = ["first", "second", "third", "fourth", "fifth", "sixth", "seventh"]


@pytest.mark.parametrize("pieces", [1, 2, 3, 5, 100])
def test_pipelined_requests_are_answered_in_their_order_each_by_its_own_headers(models: Path, pieces: int) -> None:
    async def check(connection: Connection, _: Stage, loop: ClockLoop) -> None:
        data = b"".join(MIXED)
        step = -(-len(data) // pieces)
        for first in range(0, len(data), step):
            await connection.send(data[first : first + step])
        await loop.turn_until(lambda: len(connection.statuses) == len(MIXED))
        assert connection.request_ids == IDS
        assert connection.statuses == STATUSES

    on_a_connection(models, check)


def test_a_pipelined_request_is_not_begun_before_the_one_in_front_is_answered(models: Path) -> None:
    async def check(connection: Connection, stage: Stage, loop: ClockLoop) -> None:
        stage.holds = True
        await stage.send(connection, POST * 3)
        for number in range(1, 4):
            await loop.turn_until(lambda number=number: stage.begun >= number)  # type: ignore[misc]
            await loop.turn()
            assert (stage.begun, connection.statuses) == (number, [200] * (number - 1))
            stage.go_on()
        await loop.turn_until(lambda: connection.statuses == [200] * 3)

    on_a_connection(models, check)


@pytest.mark.parametrize("together", [True, False])
def test_the_last_pipelined_request_may_ask_for_the_connections_end(models: Path, together: bool) -> None:
    async def check(connection: Connection, stage: Stage, loop: ClockLoop) -> None:
        stage.holds = True
        asks = [request({"inputs": "a"}), request({"inputs": "a"}, connection="close")]
        for data in [b"".join(asks)] if together else asks:
            await connection.send(data)
        stage.go_on()
        await loop.turn_until(lambda: connection.statuses == [200])
        await loop.turn()
        assert connection.closed_at is None
        stage.go_on()
        await loop.turn_until(lambda: connection.statuses == [200, 200])
        assert connection.closed_at is not None

    on_a_connection(models, check)


def test_headers_over_the_limit_are_431_in_one_piece_and_without_an_end(models: Path) -> None:
    async def check(connection: Connection, stage: Stage, loop: ClockLoop) -> None:
        for data in (b"x: " + b"a" * 40000, b"a: b\r\n" * 8000, b"a" * 40000):
            caller = stage.site.connect()
            await caller.send(b"GET /health/live HTTP/1.1\r\n" + data)
            assert caller.statuses == [431]
            await caller.send(b"a" * 1000000)  # is thrown away
            await loop.pass_time(3)
            assert caller.statuses == [431]
            assert caller.closed_at is not None

    on_a_connection(models, check)


CHUNKED = request({"inputs": "a"}, content_length="15", transfer_encoding="chunked").replace(
    b"content-length: 15\r\n", b""
)
CHUNKED_HEAD = CHUNKED.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
CHUNK = b'f\r\n{"inputs": "a"}\r\n'


def test_trailers_are_no_headers_and_are_limited_like_them(models: Path) -> None:
    async def check(connection: Connection, stage: Stage, loop: ClockLoop) -> None:
        trailers = b"0\r\nx-request-id: forged\r\ncontent-type: text/plain\r\nconnection: close\r\n\r\n"
        await stage.send(connection, CHUNKED_HEAD + CHUNK + trailers)
        await stage.send(connection, POST)
        assert connection.statuses == [200, 200]
        assert "forged" not in connection.request_ids
        await connection.send(CHUNKED_HEAD + CHUNK + b"0\r\n" + b"a: b\r\n" * 8000)
        assert connection.statuses == [200, 200, 431]
        await loop.turn_until(lambda: stage.site.app.state.services.registry.get(None).batcher.live_requests == 0)

    on_a_connection(models, check)


def test_what_is_not_http_is_a_400_problem_after_the_answers_to_the_requests_before_it(models: Path) -> None:
    async def check(connection: Connection, stage: Stage, loop: ClockLoop) -> None:
        await connection.send(POST * 2 + b"\x01\r\n\r\n" + POST)
        await loop.turn_until(lambda: len(connection.statuses) == 3)
        assert connection.statuses == [200, 200, 400]
        assert b"urn:ladabert:problem:malformed-request" in connection.received
        assert len(connection.request_ids[2]) == 32
        await loop.pass_time(3)
        assert connection.closed_at is not None

    on_a_connection(models, check)


@pytest.mark.parametrize("protocol", ["h2c", "websocket"])
@pytest.mark.parametrize("pieces", [1, 7])
def test_a_request_that_asks_for_another_protocol_is_answered_over_this_one(
    models: Path, protocol: str, pieces: int
) -> None:
    async def check(connection: Connection, stage: Stage, loop: ClockLoop) -> None:
        ask = request({"inputs": "a good film"}, connection="upgrade", upgrade=protocol) + POST
        step = -(-len(ask) // pieces)
        for first in range(0, len(ask), step):
            await connection.send(ask[first : first + step])
        await loop.turn_until(lambda: connection.statuses == [200, 200])
        assert stage.begun == 2

    on_a_connection(models, check)


def test_http_1_0_is_answered_and_closed(models: Path) -> None:
    async def check(connection: Connection, stage: Stage, loop: ClockLoop) -> None:
        await stage.send(
            connection, POST.replace(b"HTTP/1.1", b"HTTP/1.0").replace(b"host: x", b"connection: keep-alive")
        )
        assert connection.statuses == [200]
        assert connection.closed_at is not None

    on_a_connection(models, check)


def test_a_caller_who_pipelines_and_hangs_up_is_not_computed(models: Path) -> None:
    async def check(connection: Connection, stage: Stage, loop: ClockLoop) -> None:
        stage.holds = True
        await stage.send(connection, POST)  # runs
        leaver = stage.site.connect()
        await leaver.send(POST * 3)  # is queued, with more behind it
        await leaver.hang_up()
        stage.go_on()
        await loop.turn_until(lambda: connection.statuses == [200])
        assert stage.site.app.state.services.registry.get(None).batcher.live_requests == 0
        assert stage.begun == 1

    on_a_connection(models, check)


def test_of_what_is_pipelined_beside_a_request_only_a_little_is_taken(models: Path) -> None:
    async def check(connection: Connection, stage: Stage, loop: ClockLoop) -> None:
        stage.holds = True
        await stage.send(connection, POST)
        sent = 0
        for answered in range(1, 11):
            while connection.reads and sent < 5000:
                await connection.send(POST * 10)
                sent += 10
            assert (sent - answered) * len(POST) < 30000
            stage.go_on()
            await loop.turn_until(lambda answered=answered: len(connection.statuses) == answered)  # type: ignore[misc]
        stage.holds = False
        stage.go_on()
        await loop.turn_until(lambda: len(connection.statuses) == 1 + sent)

    on_a_connection(models, check)


def test_an_answer_that_nobody_takes_is_given_up_after_the_write_timeout(models: Path) -> None:
    async def check(connection: Connection, stage: Stage, loop: ClockLoop) -> None:
        await stage.send(connection, POST)
        connection.stop_reading()
        await loop.pass_time(29)
        assert connection.closed_at is None
        await loop.pass_time(3)
        assert connection.closed_at is not None
        connection.start_reading()

    on_a_connection(models, check)


def test_a_new_connection_takes_the_place_of_the_one_that_idles_longest(models: Path) -> None:
    async def check(connection: Connection, stage: Stage, loop: ClockLoop) -> None:
        stage.holds = True
        await stage.send(connection, POST)
        site = Site(stage.app, max_connections=3)
        busy, first, second = (site.connect() for _ in range(3))
        await busy.send(POST)
        third = site.connect()
        await loop.turn()
        assert [caller.closed_at is None for caller in (busy, first, second, third)] == [True, False, True, True]
        for caller in (second, third):
            await caller.send(POST)
        refused = site.connect()
        assert refused.statuses == [503]
        stage.holds = False
        stage.go_on()
        await loop.turn_until(lambda: all(caller.statuses == [200] for caller in (busy, second, third)))
        for caller in (busy, second, third, refused):
            await caller.hang_up()
        assert len(site.connections) == 0

    on_a_connection(models, check)
