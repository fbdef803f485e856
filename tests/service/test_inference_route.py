"""Claims about one request: what its body may hold, what all bodies may hold together, and that no answer is lost."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ladabert_serve.errors import TooLargeError
from ladabert_serve.http.body import parse_json
from tests.service.conftest import Server, running, serving
from tests.service.gated import gated, metric

MEGABYTE = 1 << 20


@pytest.mark.parametrize(
    "body",
    [
        b'{"inputs": [' + b"1," * 30000 + b"1]}",
        b'{"inputs": [' + b"{}," * 20000 + b"{}]}",
        b'{"inputs": [' + b'"",' * 20000 + b'""]}',
        b"[" * 60000,
        b'{"inputs": "a"' + b"".join(b', "%d": 1' % number for number in range(6000)) + b"}",
    ],
    ids=["numbers", "objects", "texts", "nesting", "fields"],
)
def test_a_body_of_many_values_is_413_without_being_parsed(server: Server, body: bytes) -> None:
    response = server.post_raw(body)
    assert response.status_code == 413, response.text
    assert "JSON values" in response.json()["detail"]


LEAVES = st.none() | st.booleans() | st.integers() | st.text()
JSON = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))


def count(value: Any) -> int:
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + sum(map(count, children))


@given(JSON, st.booleans())
def test_no_body_passes_that_holds_more_values_than_allowed(value: Any, ascii_only: bool) -> None:
    value = ["x" * 20000, value]  # long enough to be counted
    body = json.dumps(value, ensure_ascii=ascii_only).encode()
    values = count(value)
    assert parse_json(body, 3 * values) == value
    with pytest.raises(TooLargeError):
        parse_json(body, values // 2 - 1)


def test_a_list_of_as_many_pairs_as_allowed_passes(models: Path) -> None:
    with serving(models) as server:
        pairs = [{"text": "a good film " * 2, "text_pair": "bad"}] * 512
        assert server.classify({"inputs": pairs, "model": "pairs"}).status_code == 200


def test_unknown_fields_and_long_lists_are_refused_before_the_rest_is_looked_at(server: Server) -> None:
    assert server.classify({"inputs": [1] * 21}).status_code == 413
    response = server.classify({"inputs": [1], "nope": 1, "neither": 2})
    assert [error["path"] for error in response.json()["errors"]] == ["nope", "neither"]
    assert [error["path"] for error in server.classify({"inputs": [1, 2, 3]}).json()["errors"]] == ["inputs[0]"]


def test_bodies_that_are_held_back_leave_room_for_small_ones_and_give_their_room_back(models: Path) -> None:
    async def check() -> None:
        async with running(models, max_bytes_in_flight=4 * MEGABYTE, max_body_bytes=2 * MEGABYTE) as (_, client):
            go_on = asyncio.Event()
            taken: asyncio.Semaphore = asyncio.Semaphore(0)

            async def slow_body() -> AsyncIterator[bytes]:
                yield b" " * (MEGABYTE * 5 // 4)
                taken.release()
                await go_on.wait()
                yield b'{"inputs": "a"}'

            async def post(content: Any) -> httpx.Response:
                headers = {"content-type": "application/json"}
                return await client.post("/classify", content=content, headers=headers)

            large = json.dumps({"inputs": "a", "model": "x" * MEGABYTE}).encode()
            held = [asyncio.ensure_future(post(slow_body())) for _ in range(2)]
            for _ in held:
                await taken.acquire()
            refused = await post(large)
            assert (refused.status_code, "retry-after" in refused.headers) == (429, True)
            assert (await post(b'{"inputs": "a"}')).status_code == 200
            go_on.set()
            assert [response.status_code for response in await asyncio.gather(*held)] == [200, 200]
            assert (await post(large)).status_code == 404  # its room is there again

    asyncio.run(check())


def test_a_record_that_fails_does_not_cost_the_answer(models: Path) -> None:
    def fail(*_: Any) -> None:
        raise ValueError("the disk is full")

    with serving(models) as server:
        services = server.app.state.services
        seen: list[int] = []
        server.app.state.services = type(services)(
            services.settings, services.registry, services.metrics, [fail, lambda _, status: seen.append(status)]
        )
        assert server.classify({"inputs": "a"}).status_code == 200
        assert seen == [200]


def test_a_cancelled_task_is_answered_503_and_counted_once(models: Path) -> None:
    with gated(models) as waiting:

        async def ask_and_cancel() -> list[Any]:
            sent: list[Any] = []
            asked = asyncio.Event()

            async def receive() -> Any:
                asked.set()
                return {"type": "http.request", "body": b'{"inputs": "a"}'}

            async def send(message: Any) -> None:
                sent.append(message)

            scope = {
                "type": "http",
                "method": "POST",
                "path": "/classify",
                "query_string": b"",
                "headers": [(b"content-type", b"application/json"), (b"content-length", b"15")],
                "extensions": {"ladabert.hang_ups": {"callbacks": set()}},
            }
            task = asyncio.ensure_future(waiting.server.app(scope, receive, send))
            await asyncio.to_thread(waiting.wait_at_gate)
            task.cancel()
            await task
            return sent

        sent = waiting.server.call(ask_and_cancel)
        assert sent[0]["status"] == 503
        waiting.backend.gate.set()
        assert metric(waiting.server, 'ladabert_requests_total{model="alpha",route="/classify",status="503"}') == 1
        assert metric(waiting.server, "ladabert_requests_in_progress") == 0
