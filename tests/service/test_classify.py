"""Claims about POST /classify: what comes back, for what is right and for what is wrong."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.service.conftest import Server, serving
from tests.service.tiny_artefact import write_artefact

WRONG_TYPES: list[Any] = [None, True, 3, 1.5, "text", [], {}, [[]], [None], "\ud800"]


def check_problem(response: Any, status: int) -> dict[str, Any]:
    """Hold the answer to be a problem of that status, and return it."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = response.json()
    assert problem["status"] == status
    assert problem["request_id"] == response.headers["x-request-id"]
    assert problem["title"]
    assert problem["detail"]
    assert problem["type"].startswith("urn:ladabert:problem:")
    return problem


def check_alive(server: Server) -> None:
    """Hold the server to answer still."""
    assert server.classify({"inputs": "a good film"}).status_code == 200
    assert server.get("/health/ready").status_code == 200


def test_one_text_gives_a_list_of_one_prediction(server: Server) -> None:
    body = server.classify({"inputs": "a good film"}).json()
    assert list(body) == ["model", "version", "predictions", "timing_ms"]
    assert (body["model"], body["version"]) == ("alpha", "0123456789ab")
    (prediction,) = body["predictions"]
    assert list(prediction) == ["label", "score", "scores", "tokens", "truncated"]
    assert prediction["tokens"] == 5
    assert prediction["truncated"] is False
    assert prediction["scores"][0] == {"label": prediction["label"], "score": prediction["score"]}
    assert list(body["timing_ms"]) == ["tokenize", "queue", "inference", "total"]
    assert all(value >= 0 for value in body["timing_ms"].values())


def test_softmax_scores_are_sorted_and_sum_to_one(server: Server) -> None:
    (prediction,) = server.classify({"inputs": "bad"}).json()["predictions"]
    scores = [entry["score"] for entry in prediction["scores"]]
    assert scores == sorted(scores, reverse=True)
    assert sum(scores) == pytest.approx(1)


def test_predictions_come_in_the_order_of_the_inputs(server: Server) -> None:
    texts = ["a", "a very good film", "bad", "not a good film at all", "the"]
    together = server.classify({"inputs": texts}).json()["predictions"]
    apart = [server.classify({"inputs": text}).json()["predictions"][0] for text in texts]
    for one, other in zip(together, apart, strict=True):
        assert (one["label"], one["tokens"]) == (other["label"], other["tokens"])
        assert one["score"] == pytest.approx(other["score"], abs=1e-5)


def test_a_texts_scores_do_not_depend_on_its_batch_mates(models: Path) -> None:
    text = "a good film"
    with serving(models, max_batch_padding=0.99, fair_window_tokens=256, runners=1) as server:
        alone = server.classify({"inputs": text}).json()["predictions"][0]["scores"]
        mates = ["bad " * length for length in range(1, 14)]
        together = server.classify({"inputs": [*mates, text]}).json()["predictions"][-1]["scores"]
        exposition = server.get("/metrics").text
    assert [entry["label"] for entry in together] == [entry["label"] for entry in alone]
    assert np.allclose([e["score"] for e in together], [e["score"] for e in alone], rtol=0, atol=1e-5)
    assert 'ladabert_batch_size_bucket{le="8.0",model="alpha"} 1.0' in exposition  # they did share a batch


def test_multi_label_scores_are_calibrated_sigmoids(server: Server) -> None:
    ask = {"model": "topics", "inputs": "a good film"}
    raw = server.classify({**ask, "function_to_apply": "none"}).json()["predictions"][0]["scores"]
    scores = server.classify(ask).json()["predictions"][0]["scores"]
    temperature = 2.0
    expected = {entry["label"]: 1 / (1 + np.exp(-entry["score"] / temperature)) for entry in raw}
    assert {entry["label"]: entry["score"] for entry in scores} == pytest.approx(expected)


@pytest.mark.parametrize("top_k", [1, 2, 3, 1000])
def test_top_k_cuts_the_scores_and_never_asks_for_too_many(server: Server, top_k: int) -> None:
    (prediction,) = server.classify({"model": "topics", "inputs": "a", "top_k": top_k}).json()["predictions"]
    assert len(prediction["scores"]) == min(top_k, 3)


def test_a_pair_model_reads_both_texts_in_their_order(server: Server) -> None:
    def scores(text: str, text_pair: str) -> Any:
        inputs = {"text": text, "text_pair": text_pair}
        return server.classify({"model": "pairs", "inputs": [inputs]}).json()["predictions"][0]["scores"]

    assert scores("good", "bad film") != scores("bad film", "good")


def test_a_pair_for_a_single_text_model_is_422(server: Server) -> None:
    inputs = ["a", {"text": "a", "text_pair": "b"}]
    problem = check_problem(server.classify({"inputs": inputs}), 422)
    assert [entry["path"] for entry in problem["errors"]] == ["inputs[1]"]
    assert "text_pair" in problem["errors"][0]["message"]


def test_one_text_for_a_pair_model_is_422(server: Server) -> None:
    problem = check_problem(server.classify({"model": "pairs", "inputs": "a"}), 422)
    assert problem["errors"][0]["path"] == "inputs"


def test_a_long_text_is_cut_on_the_side_that_was_asked_for(server: Server) -> None:
    text = "bad " * 20 + "good " * 20
    right = server.classify({"inputs": text}).json()["predictions"][0]
    left = server.classify({"inputs": text, "truncation_direction": "left"}).json()["predictions"][0]
    assert right["truncated"] is left["truncated"] is True
    assert right["tokens"] == left["tokens"] == 16
    for prediction, words in ((right, "bad " * 14), (left, "good " * 14)):
        same = server.classify({"inputs": words}).json()["predictions"][0]
        assert prediction["scores"] == same["scores"]


def test_a_long_text_without_truncation_is_422_with_both_lengths(server: Server) -> None:
    response = server.classify({"inputs": ["a", "good " * 30], "truncate": False})
    (error,) = check_problem(response, 422)["errors"]
    assert error["path"] == "inputs[1]"
    assert "32 tokens" in error["message"]
    assert "at most 16" in error["message"]


def test_an_unknown_model_is_404_and_the_answer_names_the_known_ones(server: Server) -> None:
    problem = check_problem(server.classify({"inputs": "a", "model": "nope"}), 404)
    assert "alpha, pairs, topics" in problem["detail"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b'{"inputs": "\xc3"}',
        b'{"inputs": "a", "top_k": NaN}',
        b'{"inputs": "a", "top_k": -Infinity}',
        b"[" * 10000,
        b'{"inputs":' * 1000,
        b'{"top_k": ' + b"9" * 5000 + b"}",
        b'\xef\xbb\xbf{"inputs": "a"}',
        b'{"inputs": "a"} trailing',
        b'{"inputs": "a\nb"}',
    ],
    ids=lambda content: repr(content[:20]),
)
def test_a_body_that_is_not_json_is_400(server: Server, content: bytes) -> None:
    check_problem(server.post_raw(content), 400)
    check_alive(server)


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "text/plain",
        "application/jsonx",
        "application/json; charset=latin-1",
        "application/x-www-form-urlencoded",
        "",
        ";",
    ],
)
def test_a_content_type_that_is_not_json_is_415(server: Server, content_type: str | None) -> None:
    check_problem(server.post_raw(b'{"inputs": "a"}', content_type), 415)


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "Application/JSON ; charset=UTF-8", 'application/json; charset="utf-8"; x=y'],
)
def test_json_content_types_are_accepted(server: Server, content_type: str) -> None:
    assert server.post_raw(b'{"inputs": "a"}', content_type).status_code == 200


def test_an_encoded_body_is_415(server: Server) -> None:
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    check_problem(server.request("POST", "/classify", content=b"{}", headers=headers), 415)


def test_a_whole_number_may_be_written_with_a_decimal_point(server: Server) -> None:
    response = server.classify({"inputs": "a", "top_k": 1.0, "timeout_ms": 1e4})
    assert len(response.json()["predictions"][0]["scores"]) == 1


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({}, "inputs"),
        ({"inputs": []}, "inputs"),
        ({"inputs": {}}, "inputs.text"),
        ({"inputs": 3}, "inputs"),
        ({"inputs": [3]}, "inputs[0]"),
        ({"inputs": ["a", {"text": 3}]}, "inputs[1].text"),
        ({"inputs": [{"text": "a", "other": 1}]}, "inputs[0].other"),
        ({"inputs": "a", "topk": 1}, "topk"),
        ({"inputs": "a", "top_k": 0}, "top_k"),
        ({"inputs": "a", "top_k": True}, "top_k"),
        ({"inputs": "a", "top_k": "1"}, "top_k"),
        ({"inputs": "a", "top_k": 1.5}, "top_k"),
        ({"inputs": "a", "timeout_ms": 0}, "timeout_ms"),
        ({"inputs": "a", "timeout_ms": 10**30}, "timeout_ms"),
        ({"inputs": "a", "function_to_apply": "relu"}, "function_to_apply"),
        ({"inputs": "a", "truncate": "yes"}, "truncate"),
        ({"inputs": "a", "truncation_direction": "up"}, "truncation_direction"),
        ({"inputs": "a", "model": 3}, "model"),
        ([], ""),
        (None, ""),
        ("text", ""),
    ],
    ids=str,
)
def test_json_that_does_not_fit_is_422_with_the_path(server: Server, body: Any, path: str) -> None:
    response = server.post_raw(json.dumps(body).encode())
    problem = check_problem(response, 422)
    assert [entry["path"] for entry in problem["errors"]] == [path]


@pytest.mark.parametrize(
    "field",
    ["inputs", "model", "top_k", "function_to_apply", "truncate", "truncation_direction", "timeout_ms", "\ud800"],
)
@pytest.mark.parametrize("value", WRONG_TYPES, ids=ascii)
def test_no_type_in_any_field_is_a_500(server: Server, field: str, value: Any) -> None:
    response = server.post_raw(json.dumps({"inputs": "a", field: value}).encode())
    late = {504} if field == "timeout_ms" else set()  # a few milliseconds may not do on a busy machine
    assert response.status_code in {200, 404, 422, *late}, response.text
    if response.status_code != 200:
        check_problem(response, response.status_code)


@pytest.mark.parametrize("text", ['"\\ud800"', '["a", "\\udfff b"]', '{"text": "\\udc00"}'])
def test_an_unpaired_surrogate_is_422(server: Server, text: str) -> None:
    problem = check_problem(server.post_raw(b'{"inputs": ' + text.encode() + b"}"), 422)
    assert "surrogate" in problem["errors"][0]["message"]


@pytest.mark.parametrize("text", ["\0", "a\0b", "", " ", "\U0001f600", "\u202e", "[PAD]", "[SEP] [CLS]", "a" * 900])
def test_odd_but_valid_texts_are_answered(server: Server, text: str) -> None:
    assert server.classify({"inputs": text}).status_code == 200


def test_too_many_inputs_are_413(server: Server) -> None:
    check_problem(server.classify({"inputs": ["a"] * 10000}), 413)
    check_alive(server)


def test_too_long_a_text_is_413(server: Server) -> None:
    problem = check_problem(server.classify({"inputs": ["a", "b" * 1001]}), 413)
    assert "inputs[1]" in problem["detail"]


def test_a_text_of_one_megabyte_is_413(models: Path) -> None:
    with serving(models) as server:
        check_problem(server.classify({"inputs": "a" * 1000000}), 413)
        check_alive(server)


def test_a_hundred_megabytes_are_413_without_being_kept(server: Server) -> None:
    async def stream() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b" " * 1000000

    check_problem(server.post_raw(stream()), 413)
    check_alive(server)


def test_a_body_that_does_not_arrive_in_time_is_504(models: Path) -> None:
    async def stall() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.Event().wait()

    with serving(models, default_timeout_ms=1) as server:
        check_problem(server.post_raw(stall()), 504)


def test_a_declared_length_over_the_limit_is_413(server: Server) -> None:
    check_problem(server.post_raw(b" " * 65537), 413)


def test_a_run_that_gives_nan_is_503_for_its_caller_only(models_folder: Path) -> None:
    write_artefact(models_folder, "alpha", poison="bad")
    with serving(models_folder, max_batch_padding=0.9) as server:
        response = server.classify({"inputs": ["good", "bad"]})
        check_problem(response, 503)
        assert response.headers["retry-after"] == "1"
        for _ in range(2):
            check_problem(server.classify({"inputs": "bad"}), 503)
        assert server.classify({"inputs": "good"}).status_code == 200


@pytest.mark.parametrize("identifier", ["abc-1.2_3", "x" * 128])
def test_a_sane_request_id_comes_back(server: Server, identifier: str) -> None:
    for response in (
        server.classify({"inputs": "a"}, headers={"x-request-id": identifier}),
        server.get("/nowhere", headers={"x-request-id": identifier}),
        server.get("/health/live", headers={"x-request-id": identifier}),
    ):
        assert response.headers["x-request-id"] == identifier


@pytest.mark.parametrize("identifier", ["", "x" * 129, "a b", "a\tb", "é".encode(), "a;b"])
def test_an_insane_request_id_is_replaced(server: Server, identifier: str | bytes) -> None:
    response = server.get("/health/live", headers={"x-request-id": identifier})
    assert response.headers["x-request-id"].isalnum()
    assert len(response.headers["x-request-id"]) == 32


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=8), children, max_size=4),
    max_leaves=12,
)
FIELDS = ["inputs", "model", "top_k", "function_to_apply", "truncate", "truncation_direction", "timeout_ms", "text"]


@settings(max_examples=150, deadline=None)
@given(body=json_values | st.dictionaries(st.sampled_from(FIELDS), json_values, min_size=1))
def test_no_json_value_is_a_500(server: Server, body: Any) -> None:
    response = server.classify(body)
    assert response.status_code in (200, 400, 404, 413, 422, 504), response.text
    is_other_dialect = isinstance(body, dict) and "inputs" not in body and ("text" in body or "input" in body)
    if response.status_code != 200 and not is_other_dialect:
        check_problem(response, response.status_code)


@settings(max_examples=100, deadline=None)
@given(content=st.binary(max_size=200) | st.text(max_size=100).map(lambda text: text.encode()))
def test_no_bytes_are_a_500(server: Server, content: bytes) -> None:
    check_status = server.post_raw(content).status_code
    assert check_status in (400, 422)


@settings(max_examples=100, deadline=None)
@given(text=st.text(st.characters(codec="utf-8"), max_size=60), pair=st.none() | st.text(max_size=60))
def test_no_text_is_a_500(server: Server, text: str, pair: str | None) -> None:
    body = {"inputs": {"text": text, "text_pair": pair}, "model": "alpha" if pair is None else "pairs"}
    assert server.post_raw(json.dumps(body).encode()).status_code in (200, 422)
