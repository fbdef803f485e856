"""Claims about what the fault scripts compute from what they see; the faults themselves are done by hand."""

import asyncio
import contextlib
import json
import math
import re
from pathlib import Path

import pytest

from benchmarks.faults.__main__ import FAULTS
from benchmarks.faults.client import NO_ANSWER, Answer, Connection, classify
from benchmarks.faults.deadlines import begun_after_ms
from benchmarks.faults.figures import growth, median, percentile
from benchmarks.faults.load import Answers, OpenLoop, unanswered
from benchmarks.faults.report import Options, Report, milliseconds
from benchmarks.faults.scrape import disagreements, parse, texts_computed
from benchmarks.faults.sigkill import falls
from benchmarks.faults.table import BEGIN, END, PAGE, RESULTS, to_markdown, with_table

METRICS = """\
# HELP ladabert_requests_total Requests.
# TYPE ladabert_requests_total counter
ladabert_requests_total{model="a",route="/classify",status="200"} %d
ladabert_requests_total{model="b",route="/classify",status="200"} 1.0
ladabert_requests_total{model="a",route="/classify",status="504"} %d
# TYPE ladabert_rejected_total counter
ladabert_rejected_total{model="a",reason="deadline"} %d
# TYPE ladabert_requests_in_progress gauge
ladabert_requests_in_progress 3.0
# TYPE ladabert_batch_size histogram
ladabert_batch_size_bucket{model="a",le="+Inf"} 2.0
ladabert_batch_size_count{model="a"} 2.0
ladabert_batch_size_sum{model="a"} %d
"""


def answer(status: int, seconds: float = 0.1) -> Answer:
    return Answer(status, 10.0, 10.0 + seconds, {}, b"")


def test_a_percentile_is_a_value_that_was_measured() -> None:
    values = [float(value) for value in range(100, 0, -1)]
    assert percentile(values, 0.99) == 99
    assert percentile(values, 1) == 100
    assert median([3.0, 1.0, 2.0]) == 2
    assert percentile([5.0], 0.01) == 5
    assert math.isnan(percentile([], 0.5))


def test_growth_leaves_the_warm_up_out() -> None:
    warm_up = [1.0] * 25
    assert growth([*warm_up, *[100.0] * 75]) == 0
    assert growth([*warm_up, *[100.0] * 50, *[103.0] * 25]) == pytest.approx(0.03)
    assert math.isnan(growth([1.0] * 9))


def test_metrics_are_summed_over_the_labels_that_are_not_named() -> None:
    page = parse(METRICS % (5, 2, 2, 40))
    assert page.total("ladabert_requests_total") == 8
    assert page.total("ladabert_requests_total", status="200") == 6
    assert page.total("ladabert_requests_total", status="200", model="a") == 5
    assert page.taken_in == 11
    assert len(page.values) == 8


def test_the_growth_of_metrics_is_compared_with_every_answer() -> None:
    before, after = parse(METRICS % (5, 2, 2, 40)), parse(METRICS % (8, 3, 3, 44))
    answers = [*[answer(200)] * 3, answer(504), answer(NO_ANSWER)]
    assert texts_computed(before, after) == 4
    assert disagreements(answers, before, after) == []
    assert disagreements(answers[1:], before, after) == ["status 200: 3 in the metrics, 2 answers"]
    assert disagreements([*answers, answer(429)], before, after) == [
        "status 429: 0 in the metrics, 1 answers",
        "reason queue_full: 0 in the metrics, 1 answers",
    ]


def test_a_late_text_that_a_run_took_is_told_by_the_access_log() -> None:
    fields = {"tokenize_ms": 1.5, "queue_ms": 90.0}
    lines = [
        {"request_id": "late-100-1", "status": 504, **fields},
        {"request_id": "late-100-2", "status": 504, "tokenize_ms": 1.5},  # was not begun
        {"request_id": "late-100-3", "status": 200, **fields},
        {"request_id": "another", "status": 504, **fields},
    ]
    log = "\n".join(["no JSON", '{"level": "info"}', *map(json.dumps, lines)])
    assert begun_after_ms(log) == {"late-100-1": 91.5}


def test_a_counter_that_falls_and_a_series_that_goes_are_told() -> None:
    before, after = parse(METRICS % (5, 2, 2, 40)), parse(METRICS % (4, 2, 2, 40))
    assert falls([before, before]) == []
    assert falls([before, after]) == ["ladabert_requests_total fell from 5 to 4"]
    after.values.pop(("ladabert_requests_in_progress", frozenset()))
    assert "ladabert_requests_in_progress went" in falls([before, after])


def test_answers_are_counted_by_status_and_timed_by_status() -> None:
    answers = Answers([answer(200, 0.1), answer(200, 0.3), answer(429, 0.01), answer(NO_ANSWER)], 2.0)
    assert answers.rate == 1
    assert answers.statuses() == {0: 1, 200: 2, 429: 1}
    assert answers.percentile_s(0.99) == pytest.approx(0.3)
    assert answers.percentile_s(0.99, 429) == pytest.approx(0.01)
    assert unanswered(answers.all) == 1


def test_a_report_holds_when_every_check_does_and_there_is_one() -> None:
    report = Report()
    assert not report.holds
    report.check("a", "1", True)
    assert report.holds
    report.check("b", "2", False)
    assert not report.holds
    assert report.to_dict()["checks"][1] == {"promise": "b", "measured": "2", "holds": False}


def test_the_seconds_that_are_asked_for_win_over_the_kind_of_run() -> None:
    assert Options(Path()).duration_s(60, 15) == 60
    assert Options(Path(), quick=True).duration_s(60, 15) == 15
    assert Options(Path(), seconds=9).duration_s(60, 15) == 9


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.00234, "2.3 ms"), (0.1804, "180 ms"), (0.9999, "1.00 s"), (12.3, "12.30 s")]
)
def test_times_are_written_for_a_reader(seconds: float, text: str) -> None:
    assert milliseconds(seconds) == text


async def _talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer each request with its number on this connection; hang up on the fourth."""
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError), contextlib.closing(writer):
        for number in range(3):
            request = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(request.partition(b"content-length: ")[2].split()[0]))
            body = json.dumps(number).encode()
            head = b"HTTP/1.1 200 Fine\r\nX-Number: %d\r\ncontent-length: %d\r\n\r\n" % (number, len(body))
            writer.write(head + body)
        await reader.readuntil(b"\r\n\r\n")
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


async def _finish_handlers() -> None:
    """Wait for what the server still does, so that no socket is left to the garbage collector."""
    await asyncio.gather(*(task for task in asyncio.all_tasks() if task is not asyncio.current_task()))


def test_pipelined_answers_come_in_order_and_a_hang_up_is_no_answer() -> None:
    async def check() -> None:
        async with await asyncio.start_server(_talk, "127.0.0.1", 0) as server:
            connection = await Connection.open(server.sockets[0].getsockname()[1])
            answers = await asyncio.gather(*(connection.send(classify("a")) for _ in range(5)))
            assert [found.status for found in answers] == [200, 200, 200, NO_ANSWER, NO_ANSWER]
            assert [found.json() for found in answers[:3]] == [0, 1, 2]
            assert answers[2].headers["x-number"] == "2"
            assert await connection.wait_closed(10)
            assert not connection.is_open
            await _finish_handlers()

    asyncio.run(check())


def test_an_open_loop_tells_every_request_even_when_the_server_hangs_up() -> None:
    async def check() -> None:
        async with await asyncio.start_server(_talk, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            requests = iter([classify("a")] * 1000)
            loop = OpenLoop(port, requests, rate=1000, seconds=0.02)
            await loop.send()
            answers = await loop.answers()
            assert len(answers.all) == 20
            assert set(answers.statuses()) <= {200, NO_ANSWER}
            assert loop.lateness_s(answers) >= 0
            await _finish_handlers()

    asyncio.run(check())


def test_the_page_has_the_table_of_the_committed_results() -> None:
    page = PAGE.read_text(encoding="utf-8")
    table = to_markdown(json.loads(RESULTS.read_text(encoding="utf-8")))
    assert page == with_table(page, table), "run: python -m benchmarks.faults.table --write"


def test_the_page_tells_how_to_run_every_fault() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for name in FAULTS:
        assert f"`{name}`" in page


def test_the_page_names_tests_that_are_there() -> None:
    named = re.findall(r"`(test_\w+\.py)`", PAGE.read_text(encoding="utf-8"))
    assert named
    assert not [name for name in named if not (PAGE.parents[1] / "tests" / "service" / name).exists()]


def test_a_failed_check_stands_out_in_the_table() -> None:
    checks = [{"promise": "p", "measured": "a | b", "holds": False}, {"promise": "q", "measured": "c", "holds": True}]
    table = to_markdown({"machine": "m", "faults": {"f": {"commit": "c", "checks": checks}}})
    assert "| f | p | a \\| b | **FAILED** |" in table
    assert "| f | q | c | ok |" in table
    assert with_table(f"x\n{BEGIN}old\n{END}\ny", "new\n") == f"x\n{BEGIN}new\n{END}\ny"
    with pytest.raises(ValueError, match="no markers"):
        with_table("x", "new\n")
