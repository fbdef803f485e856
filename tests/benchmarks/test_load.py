"""Claims about the client and the load generators, against a server in this process that answers as a test says."""

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from benchmarks.harness.client import NO_ANSWER, Answer, Connection, ask, classify, get, post
from benchmarks.harness.load import Answers, OpenLoop, closed_loop, meanwhile

GOOD = (200, b'{"label": "a"}')
Reply = Callable[[bytes], tuple[int, bytes] | None]  # None: hang up


@contextlib.asynccontextmanager
async def answering(reply: Reply, *headers: str) -> AsyncIterator[int]:
    """Answer every request of every connection; end when nobody is connected any more."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError), contextlib.closing(writer):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.partition(b"content-length: ")[2].split()[0])
                given = reply(await reader.readexactly(length))
                if given is None:
                    break
                lines = [f"HTTP/1.1 {given[0]} Fine", f"content-length: {len(given[1])}", *headers, "", ""]
                writer.write("\r\n".join(lines).encode() + given[1])
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]
        # What the server still does, so that no socket is left to the garbage collector.
        await asyncio.gather(*(task for task in asyncio.all_tasks() if task is not asyncio.current_task()))


def requests(count: int) -> Iterator[bytes]:
    return (classify(f"text {number}") for number in range(count))


def run_closed_loop(reply: Reply, count: int, *headers: str, callers: int = 2, come_again: bool = False) -> Answers:
    """Send so many requests."""

    async def run() -> Answers:
        async with answering(reply, *headers) as port:
            return await closed_loop(port, requests(count), callers, 30, come_again=come_again)

    return asyncio.run(run())


def test_callers_share_the_requests_and_each_is_sent_once() -> None:
    seen: list[str] = []

    def reply(body: bytes) -> tuple[int, bytes]:
        seen.append(json.loads(body)["inputs"])
        return GOOD

    answers = run_closed_loop(reply, 20, callers=3)
    assert sorted(seen) == sorted(f"text {number}" for number in range(20))
    assert {answer.request for answer in answers.all} == set(requests(20))
    assert answers.statuses() == {200: 20}


def test_a_caller_waits_for_its_answer_before_it_sends_again() -> None:
    answers = run_closed_loop(lambda _: GOOD, 6, callers=1)
    times = [(answer.sent_at, answer.ended_at) for answer in answers.all]
    assert all(earlier[1] <= later[0] for earlier, later in itertools.pairwise(times))


def test_a_hang_up_is_no_answer_and_the_caller_connects_again() -> None:
    turns = itertools.count()
    answers = run_closed_loop(lambda _: None if next(turns) == 1 else GOOD, 5, callers=1)
    assert answers.statuses() == {NO_ANSWER: 1, 200: 4}
    assert answers.unanswered == answers.failed == 1


def test_who_is_told_to_come_again_later_does_and_its_latency_goes_on() -> None:
    times: list[float] = []

    def reply(_: bytes) -> tuple[int, bytes]:
        times.append(asyncio.get_running_loop().time())
        return (429, b"") if len(times) <= 2 else GOOD

    answers = run_closed_loop(reply, 1, "Retry-After: 0", callers=1, come_again=True)
    assert answers.refused == 2
    assert answers.statuses() == {200: 1}
    assert answers.all[0].seconds >= times[2] - times[0]


def test_a_refusal_is_an_answer_to_who_does_not_come_again() -> None:
    answers = run_closed_loop(lambda _: (429, b""), 2, "Retry-After: 0")
    assert answers.refused == 0
    assert answers.statuses() == {429: 2}


def test_a_probe_tells_what_was_spent_meanwhile() -> None:
    async def run() -> Answers:
        readings = iter([(1.0, 5.0), (4.0, 5.5)])
        async with answering(lambda _: GOOD) as port:
            return await closed_loop(port, requests(3), 1, 30, probe=lambda: next(readings))

    assert asyncio.run(run()).spent == (3.0, 0.5)


def test_the_warm_up_does_not_count() -> None:
    async def run() -> Answers:
        async with answering(lambda _: GOOD) as port:
            return await closed_loop(port, requests(5), 1, 30, warm_up_s=30)

    assert asyncio.run(run()).all == []


def test_a_slow_server_is_waited_for_until_enough_has_come() -> None:
    async def run() -> Answers:
        async with answering(lambda _: GOOD) as port:
            return await closed_loop(port, requests(100_000), 1, 0.001, least_answers=10)

    assert len(asyncio.run(run()).all) >= 10


def test_pipelined_answers_come_in_order_and_a_hang_up_is_no_answer() -> None:
    async def check() -> None:
        numbers = itertools.count()

        def reply(_: bytes) -> tuple[int, bytes] | None:
            number = next(numbers)
            return (200, json.dumps(number).encode()) if number < 3 else None

        async with answering(reply, "X-Name: Value") as port:
            connection = await Connection.open(port)
            answers = await asyncio.gather(*(connection.send(classify("a")) for _ in range(5)))
            assert [found.status for found in answers] == [200, 200, 200, NO_ANSWER, NO_ANSWER]
            assert [found.json() for found in answers[:3]] == [0, 1, 2]
            assert answers[2].headers["x-name"] == "Value"
            assert await connection.wait_closed(10)
            assert not connection.is_open

    asyncio.run(check())


def test_a_single_question_gets_its_answer() -> None:
    async def check() -> None:
        async with answering(lambda body: (200, body)) as port:
            answer = await ask(port, post("/classify", {"text": "é"}))
            assert (answer.status, answer.body) == (200, '{"text": "é"}'.encode())

    asyncio.run(check())


def test_an_open_loop_tells_every_request_even_when_the_server_hangs_up() -> None:
    async def check() -> None:
        turns = itertools.count()
        async with answering(lambda _: None if next(turns) % 4 == 3 else GOOD) as port:
            loop = OpenLoop(port, requests(1000), rate=1000, seconds=0.02)
            await loop.send()
            answers = await loop.answers()
            assert len(answers.all) == 20
            assert answers.statuses().keys() == {200, NO_ANSWER}
            assert loop.lateness_s(answers) >= 0

    asyncio.run(check())


def test_what_runs_meanwhile_ends_with_its_context_and_its_error_is_told() -> None:
    async def fail() -> None:
        raise RuntimeError("a list was answered 500")

    async def check() -> None:
        ended = asyncio.Event()

        async def endless() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        async with meanwhile(endless()):
            await asyncio.sleep(0)
        assert ended.is_set()
        with pytest.raises(RuntimeError, match="was answered 500"):
            async with meanwhile(fail()):
                await asyncio.sleep(0)

    asyncio.run(check())


def test_answers_are_counted_by_status_and_timed_by_status() -> None:
    def answer(status: int, seconds: float = 0.1) -> Answer:
        return Answer(b"", status, 10.0, 10.0 + seconds, {}, b"")

    answers = Answers([answer(200, 0.1), answer(200, 0.3), answer(429, 0.01), answer(NO_ANSWER)], 2.0)
    assert answers.rate == 1
    assert answers.statuses() == {0: 1, 200: 2, 429: 1}
    assert answers.percentile_s(99) == pytest.approx(0.3)
    assert answers.percentile_s(99, 429) == pytest.approx(0.01)
    assert (answers.failed, answers.unanswered) == (2, 1)


def test_a_request_says_what_it_asks_for() -> None:
    head, _, body = classify("a", 50, "late-50-1").partition(b"\r\n\r\n")
    assert b"x-request-id: late-50-1" in head
    assert json.loads(body) == {"inputs": "a", "timeout_ms": 50}
    assert get("/metrics").startswith(b"GET /metrics HTTP/1.1\r\n")
