"""Claims about the comparison of servers: kinds of requests, the limit's batches, and how promises are judged."""

import asyncio
import sys
from pathlib import Path

import pytest

from benchmarks.harness.client import Answer
from benchmarks.harness.results import Results, Row
from benchmarks.harness.servers import Server
from benchmarks.serving import contenders
from benchmarks.serving.contenders import Contender, Kinds
from benchmarks.serving.limit import sorted_batches
from benchmarks.serving.page import Promise, draw, promises, ratio, sections
from ladabert_serve.models.tokenizer import Tokens

CONTENDER = Contender("c", lambda graph, port: [sys.executable])


def test_batches_are_sorted_as_a_whole_and_the_longest_come_first() -> None:
    tokens = [Tokens([0] * length, [0] * length, False) for length in (3, 9, 5, 4, 7)]
    batches = [[len(entry.ids) for entry in batch] for batch in sorted_batches(tokens, 2)]
    assert batches == [[9, 7], [5, 4], [3]]


def test_answers_are_filed_by_the_kind_of_their_request() -> None:
    kinds = Kinds(CONTENDER, 1, short=["a"], lists=[["b", "c"]])
    one, two = b'{"label": "x"}', b'[{"label": "x"}, {"label": "y"}]'
    assert kinds.kind_of(CONTENDER.request("a"), 200, one) == "short"
    assert kinds.kind_of(CONTENDER.request(["b", "c"]), 200, two) == "lists"


@pytest.mark.parametrize(
    ("status", "body"),
    [(429, b'{"label": "x"}'), (200, b"{}"), (200, b'{"label": 1, "label": 2}'), (0, b"")],
    ids=["status", "no label", "a label too many", "hang-up"],
)
def test_what_is_no_right_answer_has_no_kind(status: int, body: bytes) -> None:
    assert Kinds(CONTENDER, 1, short=["a"]).kind_of(CONTENDER.request("a"), status, body) is None


def test_every_request_is_sent_again_and_again_in_one_order() -> None:
    kinds, again = (Kinds(CONTENDER, 1, short=["a", "b", "c"]) for _ in range(2))
    sent = [next(kinds.requests) for _ in range(6)]
    assert sent[:3] == sent[3:] == [next(again.requests) for _ in range(3)]
    assert set(sent) == {CONTENDER.request(text) for text in "abc"}


@pytest.mark.parametrize(("status", "label"), [(200, "x"), (500, "y")])
def test_a_contender_that_gives_another_label_ends_the_run(
    status: int, label: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ask(port: int, request: bytes) -> Answer:
        return Answer(request, status, 0, 0, {}, b'{"label": "%s"}' % label.encode())

    monkeypatch.setattr(contenders, "ask", ask)
    server = Server("c (student)", [sys.executable, "-c", ""], 0, tmp_path / "log", {}, talks=False)
    with pytest.raises(SystemExit, match=r"c \(student\) answered .*, not 'y', to 'a text'"):
        asyncio.run(CONTENDER.check(server, ["a text"], ["y"]))
    server.process.wait()


def point(contender: str, requests_per_s: float, number: int = 1, **figures: object) -> Row:
    about = {"round": number, "graph": "teacher", "load": "sentence", "concurrency": 32, "contender": contender}
    return {**about, "requests_per_s": requests_per_s, "p99_ms": 1.0, **figures}


def alone(name: str, value: float, number: int = 1) -> Row:
    return {"round": number, "graph": "student", "name": name, "value": value}


def judged(points: list[Row], specials: list[Row] | None = None) -> dict[str, tuple[float | None, str]]:
    results = Results("serving", tables={"points": points, "alone": specials or []})
    return {row.claim: (row.measured, row.verdict) for row in promises(results)}


def test_ratios_are_taken_within_a_round_against_the_best() -> None:
    ours = [point("ours", 100, 1), point("ours", 50, 2), point("ours", 80, 3)]
    others = [point("a", 50, 1), point("b", 40, 1), point("a", 20, 2), point("b", 25, 2), point("a", 20, 3)]
    # Of 2, 2 and 4; the machine was half as fast in round 2, and the ratio does not see it.
    assert ratio(ours, others, "requests_per_s", max) == 2


def test_who_answered_nothing_is_no_one_to_compare_with() -> None:
    silent = point("a", 0)
    assert ratio([point("ours", 100)], [silent], "p99_ms", min) is None
    assert ratio([point("ours", 100)], [silent, point("b", 50)], "requests_per_s", max) == 2


def test_a_run_without_figures_keeps_no_promise() -> None:
    assert {verdict for _, verdict in judged([]).values()} == {"not measured"}


def test_the_limit_is_the_one_measured_beside_that_concurrency() -> None:
    points = [point("ladabert", 70), point("limit", 100)]
    points += [point("ladabert", 70, concurrency=64), point("limit", 140, concurrency=64)]
    rows = judged(points)
    assert rows["teacher, fp32: throughput over the in-process limit, concurrency 32"] == (0.7, "ok")
    assert rows["teacher, fp32: throughput over the in-process limit, concurrency 64"] == (0.5, "short")


def test_others_are_the_servers_of_the_same_file() -> None:
    points = [point("ladabert", 300, p99_ms=90), point("transformers", 10_000)]
    points += [point("fastapi", 150, p99_ms=300), point("litserve", 100, p99_ms=100)]
    points += [point("ladabert", 250_000, graph="student")]
    rows = judged(points)
    assert rows["teacher, fp32: throughput over the best other server, concurrency 32"] == (2, "ok")
    assert rows["teacher, fp32: p99 over the lowest of the others, concurrency 32"] == (0.9, "ok")
    assert rows["student here over transformers.pipeline on the teacher, concurrency 32"] == (25, "ok")


def test_our_service_on_openvino_is_judged_against_the_others_and_not_among_them() -> None:
    points = [point("ladabert", 300), point("fastapi", 200)]
    assert not any("OpenVINO" in claim for claim in judged(points))
    rows = judged([*points, point("ladabert-openvino", 500)])
    assert rows["teacher, fp32, with OpenVINO: throughput over the best other server, concurrency 32"] == (2.5, "ok")
    assert rows["teacher, fp32: throughput over the best other server, concurrency 32"] == (1.5, "ok")


def test_fairness_is_a_ratio_within_a_round_that_has_both_parts() -> None:
    specials = [alone("short_alone_p99_ms", 10), alone("short_with_long_p99_ms", 31)]
    rows = judged([], [*specials, alone("short_with_long_p99_ms", 100, 2)])
    assert rows["student, int8: p99 of short texts with as many clients of long ones, over alone"] == (3.1, "short")
    assert rows["teacher, fp32: p99 of short texts with as many clients of long ones, over alone"][0] is None


@pytest.mark.parametrize(
    ("promise", "wanted", "verdict"),
    [
        (Promise("a", 1.5, None, 1.5), "≥ 1.5", "ok"),
        (Promise("a", 1.5, None, 1.49), "≥ 1.5", "short"),
        (Promise("a", None, 150, 150, " µs"), "≤ 150 µs", "ok"),
        (Promise("a", None, 150, 151, " µs"), "≤ 150 µs", "short"),
        (Promise("a", None, 150, None), "≤ 150", "not measured"),
    ],
)
def test_a_threshold_itself_is_enough(promise: Promise, wanted: str, verdict: str) -> None:
    assert (promise.wanted, promise.verdict) == (wanted, verdict)


def test_the_plot_is_the_same_file_for_the_same_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.serving.page.IMAGES", tmp_path)
    results = Results("serving", tables={"points": [point("ladabert", 70), point("limit", 100)]})
    draw(results, "")
    first = (tmp_path / "serving.svg").read_bytes()
    draw(results, "")
    assert (tmp_path / "serving.svg").read_bytes() == first
    assert b"LadaBERT" in first


def test_a_server_is_shown_with_its_medians_and_what_was_not_measured_is_a_dash() -> None:
    costs = {"p50_ms": 2.0, "cpu_ms": 3.0, "client_cpu_ms": 0.1, "peak_mib": 250.0, "refused": 1, "errors": 0}
    points = [point("ladabert", rate, number, **costs) for number, rate in ((1, 100), (2, 300), (3, 200))]
    about = {"command": "c", "commit": "c", "date": "d", "machine": "m", "cores": 2, "versions": {}}
    settings = {"rounds": 3, "seconds": 1, "texts": "made up", "graphs": {}}
    text = sections(Results("serving", about, settings, {"points": points, "alone": []}))["serving"]
    assert "| LadaBERT | **200** (2 / 1) | 3, 0.1 | 250 (3, 0) |" in text
    assert "| one in-process call, median ms | – | – |" in text
