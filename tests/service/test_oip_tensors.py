"""Claims about Open Inference Protocol requests: which texts they mean, what is refused and why, what comes back."""

import json
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ladabert_serve.errors import InvalidRequestError, NotJsonError, RequestError, TooLargeError
from ladabert_serve.http.tensors import pack_texts
from ladabert_serve.models.model import Model
from ladabert_serve.models.question import Prediction
from ladabert_serve.models.tokenizer import TextInput
from ladabert_serve.routes.oip_tensors import read_request, write_response
from ladabert_serve.settings import Settings
from tests.service.conftest import Server

LIMITS = Settings(max_inputs=20, max_text_bytes=100)
TEXT = {"name": "text", "shape": [2], "datatype": "BYTES", "data": ["good", "bad"]}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


def read(payload: Any, binary: bytes = b"") -> list[TextInput]:
    """Return the texts of a request, whose binary data follow its JSON."""
    front = json.dumps(payload).encode()
    return read_request(front + binary, str(len(front)) if binary else "", LIMITS)[1]


def tensor(**changes: Any) -> dict[str, Any]:
    """Return the input tensor of two texts with other fields; None takes one out."""
    return {name: value for name, value in {**TEXT, **changes}.items() if value is not None}


def binary_tensor(size: int, **changes: Any) -> dict[str, Any]:
    return tensor(data=None, parameters={"binary_data_size": size}, **changes)


@pytest.mark.parametrize(
    "changes",
    [{}, {"shape": [2, 1]}, {"shape": [2, 1], "data": [["good"], ["bad"]]}, {"shape": [2.0]}],
    ids=["flat", "column", "nested", "a whole number"],
)
def test_json_tensors_are_texts(changes: dict[str, Any]) -> None:
    assert read({"inputs": [tensor(**changes)]}) == [TextInput("good"), TextInput("bad")]


def test_two_tensors_are_pairs_in_any_order() -> None:
    second = {**TEXT, "name": "text_pair", "data": ["c", "d"]}
    expected = [TextInput("good", "c"), TextInput("bad", "d")]
    assert read({"inputs": [TEXT, second]}) == read({"inputs": [second, TEXT]}) == expected


def test_binary_tensors_follow_in_the_order_of_the_inputs_and_mix_with_json() -> None:
    data = pack_texts(["c", "é"])
    pair = binary_tensor(len(data), name="text_pair")
    assert read({"inputs": [pair, TEXT]}, data) == [TextInput("good", "c"), TextInput("bad", "é")]
    first = pack_texts(["x", "y"])
    both = [pair, binary_tensor(len(first))]
    assert read({"inputs": both}, data + first) == [TextInput("x", "c"), TextInput("y", "é")]


def test_a_header_of_zero_says_that_the_body_is_one_text_answered_in_binary() -> None:
    request, inputs = read_request("é".encode(), "0", LIMITS)
    assert inputs == [TextInput("é")]
    assert request.parameters.binary_data_output
    with pytest.raises(InvalidRequestError, match="is not UTF-8"):
        read_request(b"\xff", "0", LIMITS)


REFUSED: list[tuple[Any, str]] = [
    ([], "must be an object"),
    ({}, "inputs: Field required"),
    ({"inputs": []}, "inputs: List should have at least 1 item"),
    ({"inputs": [TEXT] * 3}, "inputs: List should have at most 2 items"),
    ({"inputs": [TEXT, TEXT]}, "inputs[1].name: is 'text' a second time"),
    ({"inputs": [tensor(name="text_pair")]}, "inputs: has no tensor 'text'"),
    ({"inputs": [tensor(name="input-0")]}, "inputs[0].name: Input should be 'text' or 'text_pair'"),
    ({"inputs": [tensor(datatype="FP32")]}, "inputs[0].datatype: Input should be 'BYTES'"),
    ({"inputs": [tensor(datatype=None)]}, "inputs[0].datatype: Field required"),
    ({"inputs": [tensor(shape=[])]}, "inputs[0].shape: List should have at least 1 item"),
    ({"inputs": [tensor(shape=[0])]}, "inputs[0].shape[0]: Input should be greater than or equal to 1"),
    ({"inputs": [tensor(shape=[-1])]}, "inputs[0].shape[0]: Input should be greater than or equal to 1"),
    ({"inputs": [tensor(shape=[2.5])]}, "inputs[0].shape[0]: Input should be a valid integer"),
    ({"inputs": [tensor(shape=[1, 2])]}, "inputs[0].shape: must be [n] or [n, 1], not [1, 2]"),
    ({"inputs": [tensor(shape=[3])]}, "inputs[0].data: has 2 elements, its shape says 3"),
    ({"inputs": [tensor(data=["a", 1])]}, "inputs[0].data[1]: must be a text"),
    ({"inputs": [tensor(data=[["a"], ["b"]])]}, "inputs[0].data[0]: must be a text"),
    ({"inputs": [tensor(data=["a", "\ud800"])]}, "inputs[0].data[1]: is not valid Unicode"),
    (
        {"inputs": [tensor(data=None)]},
        "inputs[0]: must have either data or parameters.binary_data_size, and has neither",
    ),
    (
        {"inputs": [tensor(parameters={"binary_data_size": 1})]},
        "inputs[0]: must have either data or parameters.binary_data_size, and has both",
    ),
    ({"inputs": [binary_tensor(4)]}, "inputs[0]: announces 4 bytes of binary data, 0 are left in the body; Inference-"),
    (
        {"inputs": [tensor(parameters={"shared_memory_region": "a"})]},
        "inputs[0].parameters.shared_memory_region: no such",
    ),
    (
        {"inputs": [TEXT], "outputs": [{"name": "logits"}]},
        "outputs[0].name: Input should be 'label', 'score' or 'scores'",
    ),
    ({"inputs": [TEXT], "outputs": [{"name": "label"}] * 2}, "outputs[1].name: is 'label' a second time"),
    (
        {"inputs": [TEXT], "outputs": [{"name": "label", "parameters": {"classification": 1}}]},
        "outputs[0].parameters.classification: is for the output 'scores' alone",
    ),
    ({"inputs": [TEXT], "parameters": {"top_k": 1}}, "parameters.top_k: no such field"),
    ({"inputs": [TEXT], "id": 42}, "id: Input should be a valid string"),
    ({"inputs": [TEXT], "id": "\ud800"}, "id: is not valid Unicode"),
]


@pytest.mark.parametrize(("payload", "message"), REFUSED)
def test_what_does_not_fit_is_refused_with_its_path_and_the_reason(payload: Any, message: str) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        read(payload)
    assert message in refused.value.detail


def test_binary_data_that_no_tensor_takes_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="has 1 bytes of binary data that belong to no tensor"):
        read({"inputs": [TEXT]}, b"x")


def test_a_count_and_a_text_over_the_limit_are_refused() -> None:
    many = tensor(shape=[10**30], data=None, parameters={"binary_data_size": 4})
    with pytest.raises(TooLargeError, match=r"inputs\[0\].shape has 1000000000000000000000000000000 texts"):
        read({"inputs": [many]}, b"abcd")
    with pytest.raises(TooLargeError, match=r"inputs\[0\].data\[1\] has 101 bytes"):
        read({"inputs": [tensor(data=["a", "x" * 101])]})


def mutations(value: Any) -> Iterator[Any]:
    """Yield a JSON value with each of its parts replaced by a marker."""
    yield ...
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in items:
        for changed in mutations(part):
            copy = value.copy()
            copy[key] = changed
            yield copy


FULL = {
    "id": "a",
    "parameters": {"binary_data_output": True, "timeout": 5, "truncate": True},
    "inputs": [tensor(parameters={})],
    "outputs": [{"name": "scores", "parameters": {"classification": 1, "binary_data": True}}],
}
MUTANTS = list(mutations(FULL))


@given(st.sampled_from(MUTANTS), JSON, st.binary(max_size=20), st.none() | st.integers(0, 600))
def test_any_request_is_read_or_refused(mutant: Any, part: Any, binary: bytes, header_length: int | None) -> None:
    body = json.dumps(mutant, default=lambda _: part).encode() + binary
    try:
        _, inputs = read_request(body, "" if header_length is None else str(header_length), LIMITS)
    except RequestError:
        return
    assert 1 <= len(inputs) <= LIMITS.max_inputs


@given(st.binary(), st.text(max_size=5))
def test_any_bytes_are_read_or_refused(body: bytes, header_length: str) -> None:
    try:
        read_request(body, header_length, LIMITS)
    except (InvalidRequestError, NotJsonError, TooLargeError):
        return
    assert header_length in ("", "0", str(len(body)))


PREDICTIONS: list[Prediction] = [
    {
        "label": "yes",
        "score": 0.5,
        "scores": [{"label": "yes", "score": 0.5}, {"label": "no", "score": 0.25}, {"label": "maybe", "score": 0.125}],
        "tokens": 3,
        "truncated": False,
    },
    {
        "label": "no",
        "score": 0.75,
        "scores": [{"label": "no", "score": 0.75}, {"label": "maybe", "score": 0.125}, {"label": "yes", "score": 0.0}],
        "tokens": 3,
        "truncated": False,
    },
]


@pytest.fixture
def pairs(server: Server) -> Model:
    """Return the model whose labels are no, maybe and yes."""
    model: Model = server.app.state.services.registry.get("pairs")
    return model


def write(pairs: Model, **fields: Any) -> tuple[dict[str, Any], bytes]:
    """Return the JSON and the binary data of an answer."""
    request, _ = read_request(json.dumps({"inputs": [TEXT], **fields}).encode(), "", LIMITS)
    body, header_length = write_response(request, pairs, PREDICTIONS)
    size = len(body) if header_length is None else header_length
    answer: dict[str, Any] = json.loads(body[:size])
    return answer, body[size:]


def test_all_outputs_come_unless_some_are_asked_for_and_scores_have_the_models_order(pairs: Model) -> None:
    answer, binary = write(pairs, id="42")
    assert binary == b""
    assert answer == {
        "id": "42",
        "model_name": "pairs",
        "model_version": "0123456789ab",
        "outputs": [
            {"name": "label", "datatype": "BYTES", "shape": [2], "data": ["yes", "no"]},
            {"name": "score", "datatype": "FP32", "shape": [2], "data": [0.5, 0.75]},
            {"name": "scores", "datatype": "FP32", "shape": [2, 3], "data": [0.25, 0.125, 0.5, 0.75, 0.125, 0.0]},
        ],
    }


def test_outputs_come_in_the_order_asked_for_and_without_an_id_there_is_none(pairs: Model) -> None:
    answer, _ = write(pairs, outputs=[{"name": "score"}, {"name": "label"}])
    assert [output["name"] for output in answer["outputs"]] == ["score", "label"]
    assert "id" not in answer


def test_binary_outputs_follow_the_json_in_order_and_a_single_output_may_differ(pairs: Model) -> None:
    outputs = [{"name": "label"}, {"name": "score", "parameters": {"binary_data": False}}, {"name": "scores"}]
    answer, binary = write(pairs, outputs=outputs, parameters={"binary_data_output": True})
    label, score, scores = answer["outputs"]
    assert label["parameters"] == {"binary_data_size": 13}
    assert "data" not in label
    assert score["data"] == [0.5, 0.75]
    assert scores["parameters"] == {"binary_data_size": 24}
    assert binary[:13] == struct.pack("<I3sI2s", 3, b"yes", 2, b"no")
    assert np.frombuffer(binary[13:], "<f4").tolist() == [0.25, 0.125, 0.5, 0.75, 0.125, 0.0]


def test_classification_gives_the_best_classes_as_triton_writes_them(pairs: Model) -> None:
    outputs = [{"name": "scores", "parameters": {"classification": 2}}]
    (output,) = write(pairs, outputs=outputs)[0]["outputs"]
    assert (output["datatype"], output["shape"]) == ("BYTES", [2, 2])
    assert output["data"] == ["0.500000:2:yes", "0.250000:0:no", "0.750000:0:no", "0.125000:1:maybe"]
    outputs[0]["parameters"] = {"classification": 99}
    assert write(pairs, outputs=outputs)[0]["outputs"][0]["shape"] == [2, 3]
