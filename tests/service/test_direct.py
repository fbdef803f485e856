"""Claims about requests that come in one piece and are answered without a task."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from service.direct import DirectCycle, Steps


def run_steps(coroutine: Coroutine[Any, Any, None]) -> tuple[list[str], bool]:
    """Run a coroutine to its end; return what failed, and whether its first part ran at once."""
    failures: list[str] = []
    begun: list[bool] = []

    async def main() -> None:
        ended = asyncio.Event()

        async def whole() -> None:
            begun.append(True)
            try:
                await coroutine
            finally:
                ended.set()

        Steps(whole(), asyncio.get_running_loop(), lambda: failures.append("failed")).step()
        begun_at_once = bool(begun)
        await ended.wait()
        await asyncio.sleep(0)
        begun[:] = [begun_at_once]

    asyncio.run(main())
    return failures, begun[0]


def test_a_coroutine_begins_at_once_and_goes_on_after_each_wait() -> None:
    passed: list[str] = []

    async def wait_in_every_way() -> None:
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        done.set_result("done already")
        passed.append(await done)
        await asyncio.sleep(0)
        later = loop.create_future()
        loop.call_soon(later.set_result, "later")
        passed.append(await later)
        broken = loop.create_future()
        loop.call_soon(broken.set_exception, ValueError("broken"))
        with pytest.raises(ValueError, match="broken"):
            await broken
        passed.append("end")

    assert run_steps(wait_in_every_way()) == ([], True)
    assert passed == ["done already", "later", "end"]


def test_a_bug_is_logged_and_told(caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> None:
        raise RuntimeError("a bug")

    assert run_steps(fail()) == (["failed"], True)
    assert "a bug" in caplog.text


def answer_of(keep_alive: bool, headers: list[tuple[bytes, bytes]], disconnected: bool = False) -> tuple[bytes, bool]:
    """Return what a cycle writes for a short answer, and whether the connection stays."""
    written: list[bytes] = []
    finished: list[bool] = []

    def finish(whole: bytes, stays: bool) -> None:
        written.append(whole)
        finished.append(stays)

    cycle = DirectCycle(keep_alive, finish)
    cycle.disconnected = disconnected

    async def answer() -> None:
        await cycle.send({"type": "http.response.start", "status": 200, "headers": headers})
        await cycle.send({"type": "http.response.body", "body": b"{}"})

    asyncio.run(answer())
    assert finished == ([cycle.keep_alive] if written else [])
    assert cycle.response_complete == bool(written)
    return b"".join(written), cycle.keep_alive


def test_an_answer_is_written_in_one_piece() -> None:
    data, stays = answer_of(True, [(b"content-length", b"2")])
    assert data == b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
    assert stays


@pytest.mark.parametrize(("keep_alive", "headers"), [(False, []), (True, [(b"connection", b"close")])])
def test_a_connection_that_ends_says_so_once(keep_alive: bool, headers: list[tuple[bytes, bytes]]) -> None:
    data, stays = answer_of(keep_alive, [(b"content-length", b"2"), *headers])
    assert data == b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}"
    assert not stays


def test_nothing_is_written_to_a_caller_who_left() -> None:
    assert answer_of(True, [], disconnected=True) == (b"", True)
