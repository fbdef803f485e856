"""Claims about /v2: the answers have the protocol's form, errors are its own, and no request is a 500."""

import json
import struct
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ladabert_serve.errors import OUTCOMES
from ladabert_serve.http.tensors import pack_texts
from ladabert_serve.routes.oip import STATUSES
from tests.service.conftest import Server, serving
from tests.service.gated import gated, metric, rejected
from tests.service.test_api_keys import KEY, LINES
from tests.service.test_oip_tensors import MUTANTS

VERSION = "0123456789ab"
INFER = "/v2/models/alpha/infer"
TEXT = {"name": "text", "shape": [2], "datatype": "BYTES", "data": ["a good film", "bad"]}

# The protocol's own words for its objects, as schemas.
STRING, NAMES, SHAPE = {"type": "string"}, {"type": "array", "items": {"type": "string"}}, {"type": "array"}


def objects(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": list(properties), "properties": properties}


TENSORS = {"type": "array", "items": objects(name=STRING, datatype=STRING, shape=SHAPE)}
SERVER_METADATA = objects(name=STRING, version=STRING, extensions=NAMES)
MODEL_METADATA = objects(name=STRING, versions=NAMES, platform=STRING, inputs=TENSORS, outputs=TENSORS)
RESPONSE = objects(
    model_name=STRING,
    model_version=STRING,
    id=STRING,
    outputs={"type": "array", "items": objects(name=STRING, shape=SHAPE, datatype=STRING, data={"type": "array"})},
)
ERROR = {**objects(error=STRING), "additionalProperties": False}


def check(response: httpx.Response, status: int, schema: dict[str, Any]) -> Any:
    """Hold an answer to be of this status and form, and return it."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"]
    body = response.json()
    jsonschema.validate(body, schema)
    return body


def infer(server: Server, payload: Any, path: str = INFER, **arguments: Any) -> httpx.Response:
    content = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return server.request("POST", path, content=content, **arguments)


def test_the_server_and_its_models_are_described_as_the_protocol_says(server: Server) -> None:
    check(server.get("/v2"), 200, SERVER_METADATA)
    assert server.get("/v2/health/live").json() == {"live": True}
    assert server.get("/v2/health/ready").json() == {"ready": True}
    assert server.get("/v2/models").json() == {"models": ["alpha", "pairs", "topics"]}
    for path in ("/v2/models/alpha", f"/v2/models/alpha/versions/{VERSION}"):
        assert check(server.get(path), 200, MODEL_METADATA)["versions"] == [VERSION]
        assert server.get(f"{path}/ready").json() == {"name": "alpha", "ready": True}
        assert server.get(f"{path}/config").json()["name"] == "alpha"
        check(server.get(f"{path}/stats"), 404, ERROR)
    check(server.get("/v2/models/stats"), 404, ERROR)


@pytest.mark.parametrize("path", ["/v2/models/nope", "/v2/models/alpha/versions/1"])
@pytest.mark.parametrize("suffix", ["", "/ready", "/config"])
def test_an_unknown_model_or_version_is_404_in_the_protocols_form(server: Server, path: str, suffix: str) -> None:
    error = check(server.get(path + suffix), 404, ERROR)["error"]
    assert "nope" in error or "'1'" in error
    check(infer(server, {"inputs": [TEXT]}, f"{path}/infer"), 404, ERROR)


@pytest.mark.parametrize("path", [INFER, f"/v2/models/alpha/versions/{VERSION}/infer"])
def test_infer_answers_with_the_labels_and_scores_of_classify(server: Server, path: str) -> None:
    answer = check(infer(server, {"id": "42", "inputs": [TEXT]}, path), 200, RESPONSE)
    label, score, scores = (output["data"] for output in answer["outputs"])
    expected = server.classify({"inputs": TEXT["data"]}).json()["predictions"]
    assert label == [each["label"] for each in expected]
    assert score == pytest.approx([each["score"] for each in expected], abs=1e-6)
    by_label = [{each["label"]: each["score"] for each in prediction["scores"]} for prediction in expected]
    in_order = [scores_of[name] for scores_of in by_label for name in ("NEGATIVE", "POSITIVE")]
    assert scores == pytest.approx(in_order, abs=1e-6)
    assert (answer["id"], answer["model_name"], answer["model_version"]) == ("42", "alpha", VERSION)


def test_a_binary_answer_says_how_long_its_json_is(server: Server) -> None:
    response = infer(server, {"inputs": [TEXT], "parameters": {"binary_data_output": True}})
    size = int(response.headers["inference-header-content-length"])
    assert response.headers["content-type"] == "application/octet-stream"
    sizes = [output["parameters"]["binary_data_size"] for output in json.loads(response.content[:size])["outputs"]]
    assert size + sum(sizes) == len(response.content)


def test_a_body_that_is_one_text_is_answered_in_binary(server: Server) -> None:
    response = infer(server, b"a good film", headers={"inference-header-content-length": "0"})
    size = int(response.headers["inference-header-content-length"])
    (length,) = struct.unpack_from("<I", response.content, size)
    label = response.content[size + 4 : size + 4 + length].decode()
    assert label == server.classify({"inputs": "a good film"}).json()["predictions"][0]["label"]


def test_parameters_mean_what_they_mean_in_classify(server: Server) -> None:
    long = {**TEXT, "shape": [1], "data": ["a " * 30]}
    payload = {"inputs": [long], "parameters": {"function_to_apply": "none", "truncation_direction": "left"}}
    (expected,) = server.classify(
        {"inputs": long["data"], "function_to_apply": "none", "truncation_direction": "left"}
    ).json()["predictions"]
    assert infer(server, payload).json()["outputs"][1]["data"] == pytest.approx([expected["score"]], abs=1e-6)
    refused = check(infer(server, {"inputs": [long], "parameters": {"truncate": False}}), 400, ERROR)
    assert refused["error"].startswith("inputs[0].data[0]: has ")


def test_a_pair_that_does_not_fit_the_model_is_400_with_the_path_of_the_text(server: Server) -> None:
    second = {**TEXT, "name": "text_pair"}
    error = check(infer(server, {"inputs": [second, TEXT]}), 400, ERROR)["error"]
    assert error.startswith("inputs[1].data[0]: model 'alpha' reads one text")
    error = check(infer(server, {"inputs": [TEXT]}, "/v2/models/pairs/infer"), 400, ERROR)["error"]
    assert error.startswith("inputs[0].data[0]: model 'pairs' compares two texts")


@pytest.mark.parametrize(
    ("payload", "arguments", "status"),
    [
        (b"{", {}, 400),
        (b"\xff", {}, 400),
        (b" " * 70000, {}, 400),
        ({"inputs": [{**TEXT, "shape": [21], "data": ["a"] * 21}]}, {}, 400),
        ({"\ud800": 1}, {}, 400),
        ({"inputs": [TEXT]}, {"headers": {"content-encoding": "gzip"}}, 415),
        ({"inputs": [TEXT]}, {"headers": {"inference-header-content-length": "9" * 10}}, 400),
    ],
    ids=["no JSON", "no UTF-8", "body over the limit", "too many texts", "surrogate", "compressed", "header"],
)
def test_what_is_refused_has_the_protocols_form(server: Server, payload: Any, arguments: Any, status: int) -> None:
    check(infer(server, payload, **arguments), status, ERROR)


def test_a_full_queue_and_a_passed_deadline_are_503_and_counted_as_what_they_are(models: Path) -> None:
    with gated(models, max_queue_requests=1) as waiting:
        threads = [waiting.ask()]
        waiting.wait_at_gate()
        late = infer(waiting.server, {"inputs": [TEXT], "parameters": {"timeout": 1}})
        check(late, 503, ERROR)
        threads.append(waiting.ask())
        waiting.wait_for_depth(1)
        full = infer(waiting.server, {"inputs": [TEXT]})
        check(full, 503, ERROR)
        assert ("retry-after" in late.headers, "retry-after" in full.headers) == (False, True)
        waiting.backend.gate.set()
        for thread in threads:
            thread.join()
        series = 'ladabert_requests_total{model="alpha",route="/v2/models/{name}/infer",status="503"}'
        assert metric(waiting.server, series) == 2
        assert (rejected(waiting.server, "deadline"), rejected(waiting.server, "queue_full")) == (1, 1)


def test_a_missing_key_is_401_in_the_protocols_form(models: Path) -> None:
    with serving(models, api_keys=LINES) as server:
        for path in (INFER, "/v1/models/alpha:predict"):
            response = infer(server, {"inputs": [TEXT]}, path)
            check(response, 401, ERROR)
            assert response.headers["www-authenticate"] == "Bearer"
        assert infer(server, {"inputs": [TEXT]}, headers={"x-api-key": KEY}).status_code == 200
        assert server.get("/v2/health/ready").status_code == 200


def test_every_status_of_a_dialect_is_in_the_one_table() -> None:
    for error, status in STATUSES.items():
        assert status in OUTCOMES[error].in_dialects


PARTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.sampled_from(["text", "BYTES", [1], [2], ["a", "b"]]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
HEADER = st.none() | st.integers(0, 600).map(str) | st.sampled_from(["-1", "1e3", "x", " 2"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.sampled_from(MUTANTS), PARTS, st.binary(max_size=20), HEADER)
def test_no_mutated_request_is_a_500(
    server: Server, mutant: Any, part: Any, binary: bytes, header_length: str | None
) -> None:
    body = json.dumps(mutant, default=lambda _: part).encode() + binary
    headers = {} if header_length is None else {"inference-header-content-length": header_length}
    response = infer(server, body, headers=headers)
    if response.status_code != 200:  # 503 for a deadline of microseconds
        check(response, 503 if "deadline" in response.text else 400, ERROR)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.text(max_size=20), min_size=1, max_size=20), st.booleans())
def test_any_texts_are_answered_alike_in_json_and_in_binary(server: Server, texts: list[str], column: bool) -> None:
    shape = [len(texts), 1] if column else [len(texts)]
    packed = pack_texts(texts)
    front = json.dumps(
        {
            "inputs": [
                {"name": "text", "shape": shape, "datatype": "BYTES", "parameters": {"binary_data_size": len(packed)}}
            ]
        }
    ).encode()
    binary = infer(server, front + packed, headers={"inference-header-content-length": str(len(front))})
    plain = infer(server, {"inputs": [{**TEXT, "shape": shape, "data": texts}]})
    for one, other in zip(binary.json()["outputs"], plain.json()["outputs"], strict=True):
        expected = other["data"] if other["datatype"] == "BYTES" else pytest.approx(other["data"], abs=1e-5)
        assert one["data"] == expected


def test_a_model_that_is_not_ready_is_503(models: Path) -> None:
    with serving(models) as server:
        server.app.state.services.registry.drain()
        for path in ("/v2/health/ready", "/v2/models/alpha/ready", "/v1/models/alpha"):
            response = server.get(path)
            check(response, 503, ERROR)
            assert response.headers["retry-after"]
        check(infer(server, {"inputs": [TEXT]}), 503, ERROR)
