"""Claims about the dialects of other servers: the same labels and scores as /classify, in their own shapes."""

import json
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.service.conftest import Server
from tests.service.tiny_artefact import MAX_LENGTH, build_tokenizer

TEXT = "a good film"
OTHER = "dull from start to end"
LONG = "film " * 200
PATHS = ("/classify", "/v1/classify", "/predict", "/", "/models/topics", "/v1/models/alpha:predict")


def scores(server: Server, inputs: Any, **options: Any) -> list[dict[str, Any]]:
    """Return the scores that /classify gives to one input."""
    found: list[dict[str, Any]] = server.classify({"inputs": inputs, **options}).json()["predictions"][0]["scores"]
    return found


def post(server: Server, path: str, **arguments: Any) -> httpx.Response:
    """POST a body to a path."""
    return server.request("POST", path, **arguments)


def same(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> bool:
    """Return whether labels, their order and scores agree."""
    return [each["label"] for each in found] == [each["label"] for each in expected] and [
        each["score"] for each in found
    ] == pytest.approx([each["score"] for each in expected], abs=1e-6)


@pytest.mark.parametrize("path", ["/classify", "/v1/classify"])
def test_input_is_answered_as_vllm_does(server: Server, path: str) -> None:
    answer = post(server, path, json={"input": [TEXT, OTHER], "truncate_prompt_tokens": -1}).json()
    assert answer["object"] == "list"
    assert answer["model"] == "alpha"
    assert answer["id"].startswith("classify-")
    assert answer["usage"]["total_tokens"] == answer["usage"]["prompt_tokens"] > 0
    labels = server.get("/models/alpha").json()["labels"]
    for index, (text, found) in enumerate(zip((TEXT, OTHER), answer["data"], strict=True)):
        expected = {each["label"]: each["score"] for each in scores(server, text)}
        assert found["index"] == index
        assert found["num_classes"] == len(labels) == len(found["probs"])
        assert found["label"] == max(expected, key=expected.__getitem__)
        assert dict(zip(labels, found["probs"], strict=True)) == pytest.approx(expected, abs=1e-6)


def test_vllm_refuses_a_long_text_unless_it_may_be_cut(server: Server) -> None:
    refused = post(server, "/classify", json={"input": LONG})
    assert refused.status_code == 400
    error = refused.json()["error"]
    assert (error["type"], error["code"]) == ("BadRequestError", 400)
    assert "reads at most" in error["message"]
    assert post(server, "/classify", json={"input": LONG, "truncate_prompt_tokens": -1}).status_code == 200


def vllm(server: Server, given: Any, **options: Any) -> list[float]:
    answer = post(server, "/v1/classify", json={"input": given, "use_activation": False, **options})
    assert answer.status_code == 200, answer.text
    return [logit for each in answer.json()["data"] for logit in each["probs"]]


def test_token_ids_are_answered_as_their_text(server: Server) -> None:
    ids = [build_tokenizer().encode(text).ids for text in (TEXT, "a bad film")]
    assert vllm(server, ids) == vllm(server, [TEXT, "a bad film"])
    assert vllm(server, ids[0]) == vllm(server, TEXT)
    assert vllm(server, ids[0][1:-1]) == vllm(server, TEXT, add_special_tokens=False) != vllm(server, TEXT)


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_text_is_cut_at_as_many_tokens_as_vllms_callers_ask_for(server: Server, side: str) -> None:
    tokenizer = build_tokenizer()
    tokenizer.enable_truncation(5, direction=side)
    cut = tokenizer.encode(OTHER).ids
    assert len(cut) == 5
    assert vllm(server, OTHER, truncate_prompt_tokens=5, truncation_side=side) == vllm(server, cut)
    whole = list(range(5, 15))
    expected = whole[:4] if side == "right" else whole[-4:]
    assert vllm(server, whole, truncate_prompt_tokens=4, truncation_side=side) == vllm(server, expected)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"input": [5, 10**6]}, "token id 1000000 is out of the vocabulary"),
        ({"input": [7] * (MAX_LENGTH + 1)}, "reads at most"),
        ({"input": [[5], []]}, "input"),
        ({"input": TEXT, "truncate_prompt_tokens": MAX_LENGTH + 1}, "must be -1, or from 3"),
        ({"input": TEXT, "truncate_prompt_tokens": 2}, "must be -1, or from 3"),
        ({"input": [5], "model": "pairs"}, "compares two texts"),
    ],
)
def test_vllm_refuses_tokens_that_the_model_cannot_read(server: Server, body: dict[str, Any], words: str) -> None:
    refused = post(server, "/v1/classify", json=body)
    assert refused.status_code == 400
    assert words in refused.json()["error"]["message"]


def test_vllm_gives_logits_without_activation(server: Server) -> None:
    answer = post(server, "/classify", json={"input": TEXT, "use_activation": False}).json()
    expected = scores(server, TEXT, function_to_apply="none")
    assert max(answer["data"][0]["probs"]) == pytest.approx(expected[0]["score"], abs=1e-6)


def test_vllm_says_that_a_model_is_unknown(server: Server) -> None:
    refused = post(server, "/v1/classify", json={"input": TEXT, "model": "gone"})
    assert (refused.status_code, refused.json()["error"]["type"]) == (404, "NotFoundError")


def test_text_is_answered_as_ort_server_does(server: Server) -> None:
    answer = post(server, "/classify", json={"text": TEXT}).json()
    assert answer == {
        "labels": pytest.approx({each["label"]: each["score"] for each in scores(server, TEXT)}, abs=1e-6)
    }
    assert len(post(server, "/classify", json={"text": TEXT, "top_k": 1}).json()["labels"]) == 1
    refused = post(server, "/classify", json={"text": 3})
    assert (refused.status_code, list(refused.json())) == (400, ["error"])


def test_predict_tells_a_text_a_pair_and_a_batch_apart(server: Server) -> None:
    assert same(post(server, "/predict", json={"inputs": TEXT}).json(), scores(server, TEXT))
    batch = post(server, "/predict", json={"inputs": [[TEXT], [OTHER]]}).json()
    assert same(batch[0], scores(server, TEXT))
    assert same(batch[1], scores(server, OTHER))
    pair = post(server, "/predict", json={"inputs": [TEXT, OTHER]})  # the default model reads one text
    assert (pair.status_code, pair.json()["error_type"]) == (422, "Validation")


def test_predict_gives_raw_scores_and_refuses_to_cut_when_asked(server: Server) -> None:
    raw = post(server, "/predict", json={"inputs": TEXT, "raw_scores": True}).json()
    assert same(raw, scores(server, TEXT, function_to_apply="none"))
    assert post(server, "/predict", json={"inputs": LONG}).status_code == 200
    refused = post(server, "/predict", json={"inputs": LONG, "truncate": False})
    assert (refused.status_code, refused.json()["error_type"]) == (422, "Validation")


def test_predict_refuses_a_batch_over_the_limit_as_413(server: Server) -> None:
    refused = post(server, "/predict", json={"inputs": [["a"]] * 513})
    assert (refused.status_code, refused.json()["error_type"]) == (413, "Validation")


@pytest.mark.parametrize(("path", "model"), [("/", "alpha"), ("/models/topics", "topics")])
def test_hugging_face_gets_a_list_for_each_input(server: Server, path: str, model: str) -> None:
    answer = post(
        server, path, json={"inputs": TEXT, "parameters": {"top_k": 2, "function_to_apply": "sigmoid"}}
    ).json()
    expected = scores(server, TEXT, top_k=2, function_to_apply="sigmoid", model=model)
    assert len(answer) == 1
    assert same(answer[0], expected)
    assert len(post(server, path, json={"inputs": [TEXT, OTHER]}).json()) == 2


def test_hugging_face_reads_pairs(server: Server) -> None:
    pair = {"text": TEXT, "text_pair": OTHER}
    answer = post(server, "/models/pairs", json={"inputs": pair}).json()
    assert same(answer[0], scores(server, pair, model="pairs"))


def test_hugging_face_errors_are_one_line(server: Server) -> None:
    refused = post(server, "/models/gone", json={"inputs": TEXT})
    assert refused.status_code == 404
    assert "no model named 'gone'" in refused.json()["error"]
    assert post(server, "/", json={"inputs": TEXT, "parameters": {"top_k": 0}}).status_code == 400


def test_a_model_is_still_described_where_it_can_be_asked(server: Server) -> None:
    assert server.get("/models/alpha").json()["name"] == "alpha"
    assert server.request("DELETE", "/models/alpha").status_code == 405


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from(
    ["input", "inputs", "text", "instances", "parameters", "model", "truncate", "top_k", "raw_scores"]
)


@settings(max_examples=150)
@given(path=st.sampled_from(PATHS), body=st.dictionaries(KEYS, VALUES, max_size=4) | VALUES)
def test_no_body_is_a_server_error(server: Server, path: str, body: Any) -> None:
    answer = server.request("POST", path, content=json.dumps(body), headers={"content-type": "application/json"})
    assert answer.status_code < 500, (path, body, answer.text)
