"""Claims about KServe's first protocol: indices and scores are those of /classify, errors are KServe's."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.service.conftest import Server
from tests.service.test_oip import ERROR, check

TEXTS = ["a good film", "bad", "not very good"]
LABELS = {"alpha": ["NEGATIVE", "POSITIVE"], "topics": ["a", "b", "c"], "pairs": ["no", "maybe", "yes"]}
PREDICTIONS = {
    "type": "object",
    "required": ["predictions"],
    "properties": {"predictions": {"type": "array", "items": {"type": "integer"}}},
    "additionalProperties": False,
}


def predict(server: Server, body: Any, model: str = "alpha") -> Any:
    headers = {"content-type": "application/json"}
    return server.request("POST", f"/v1/models/{model}:predict", content=json.dumps(body), headers=headers)


def expected_of(server: Server, model: str, **body: Any) -> list[list[float]]:
    """Return the scores of /classify in the order of the labels."""
    predictions = server.classify({"model": model, **body}).json()["predictions"]
    by_label = [{each["label"]: each["score"] for each in prediction["scores"]} for prediction in predictions]
    return [[scores[label] for label in LABELS[model]] for scores in by_label]


@pytest.mark.parametrize("model", ["alpha", "topics"])
def test_a_prediction_is_the_index_of_the_best_label(server: Server, model: str) -> None:
    predictions = check(predict(server, {"instances": TEXTS}, model), 200, PREDICTIONS)["predictions"]
    assert predictions == [scores.index(max(scores)) for scores in expected_of(server, model, inputs=TEXTS)]


@pytest.mark.parametrize(("option", "function"), [("return_probabilities", None), ("return_raw_logits", "none")])
@pytest.mark.parametrize("model", ["alpha", "topics"])
def test_scores_and_logits_come_by_index_on_request(
    server: Server, model: str, option: str, function: str | None
) -> None:
    body = {"instances": TEXTS, "parameters": {option: True}}
    predictions = predict(server, body, model).json()["predictions"]
    expected = expected_of(server, model, inputs=TEXTS, function_to_apply=function)
    for prediction, scores in zip(predictions, expected, strict=True):
        assert list(prediction) == [str(index) for index in range(len(scores))]
        assert list(prediction.values()) == pytest.approx(scores, abs=1e-6)


def test_pairs_are_objects(server: Server) -> None:
    pairs = [{"text": "a good film", "text_pair": "bad"}]
    (scores,) = expected_of(server, "pairs", inputs=pairs)
    assert predict(server, {"instances": pairs}, "pairs").json() == {"predictions": [scores.index(max(scores))]}


def test_models_are_listed_and_ready(server: Server) -> None:
    assert server.get("/v1/models").json() == {"models": ["alpha", "pairs", "topics"]}
    assert server.get("/v1/models/alpha").json() == {"name": "alpha", "ready": True}
    check(server.get("/v1/models/nope"), 404, ERROR)


@pytest.mark.parametrize(
    ("body", "model", "status", "message"),
    [
        ({"instances": TEXTS}, "nope", 404, "no model named 'nope'"),
        ({"instances": []}, "alpha", 400, "instances: List should have at least 1 item"),
        ({"instances": "a"}, "alpha", 400, "instances: Input should be a valid list"),
        ({"instances": [1]}, "alpha", 400, "instances[0]: must be a text or an object"),
        ({"instances": ["a"], "parameters": {"top_k": 1}}, "alpha", 400, "parameters.top_k: no such field"),
        ({"instances": ["a"] * 21}, "alpha", 400, "instances has 21 texts, at most 20"),
        ({"instances": ["a" * 1001]}, "alpha", 400, "instances[0] has 1001 bytes"),
        ({"instances": ["a"]}, "pairs", 400, "instances[0]: model 'pairs' compares two texts"),
        ({}, "alpha", 400, "instances: Field required"),
    ],
)
def test_errors_have_kserves_form(server: Server, body: Any, model: str, status: int, message: str) -> None:
    assert message in check(predict(server, body, model), status, ERROR)["error"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["text", "text_pair", "x"]), inner),
    max_leaves=8,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(JSON, JSON, st.sampled_from(["alpha", "pairs"]))
def test_no_instances_are_a_500(server: Server, instances: Any, parameters: Any, model: str) -> None:
    response = predict(server, {"instances": instances, "parameters": parameters}, model)
    assert response.status_code == 200 or check(response, 400, ERROR)
    response = predict(server, {"instances": instances}, model)
    assert response.status_code == 200 or check(response, 400, ERROR)
