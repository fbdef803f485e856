"""Claims about Triton's own Python client: each call that it has for a classifier works over a real socket."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from tritonclient.utils import InferenceServerException

from tests.service.test_server import Process, started

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("server")]
TEXTS = ["a good film", "not a very good film at all", "bad", "wärme"]
VERSION = "0123456789ab"


@pytest.fixture(scope="module")
def process(models: Path) -> Iterator[Process]:
    """Return a running server."""
    with started(models) as process:
        yield process


@pytest.fixture
def client(process: Process) -> Iterator[Any]:
    """Return a client of it."""
    with triton.InferenceServerClient(f"127.0.0.1:{process.port}") as client:
        yield client


def classify(process: Process, **body: Any) -> list[dict[str, Any]]:
    """Return what POST /classify answers."""
    status, answer = process.request("POST", "/classify", json.dumps(body))
    assert status == 200, answer
    predictions: list[dict[str, Any]] = json.loads(answer)["predictions"]
    return predictions


def input_tensor(name: str, texts: list[str], shape: list[int], binary: bool, module: Any = triton) -> Any:
    """Return an input of the client."""
    tensor = module.InferInput(name, shape, "BYTES")
    tensor.set_data_from_numpy(np.array([text.encode() for text in texts], dtype=object).reshape(shape), binary)
    return tensor


def labels_of(result: Any) -> list[str]:
    """Return the labels, which come as bytes in binary and as texts in JSON."""
    return [label.decode() if isinstance(label, bytes) else label for label in result.as_numpy("label")]


def check_same(result: Any, expected: list[dict[str, Any]]) -> None:
    """Hold an answer to have the labels and scores of /classify."""
    assert labels_of(result) == [each["label"] for each in expected]
    assert result.as_numpy("score").dtype == np.float32
    np.testing.assert_allclose(result.as_numpy("score"), [each["score"] for each in expected], rtol=0, atol=1e-6)
    labels = sorted(entry["label"] for entry in expected[0]["scores"])
    for row, each in zip(result.as_numpy("scores"), expected, strict=True):
        score_of = {entry["label"]: entry["score"] for entry in each["scores"]}
        np.testing.assert_allclose(row, [score_of[label] for label in labels], rtol=0, atol=1e-6)


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False, None])
@pytest.mark.parametrize("columns", [[], [1]])
def test_infer_gives_the_labels_and_scores_of_classify(
    process: Process, client: Any, binary_in: bool, binary_out: bool | None, columns: list[int]
) -> None:
    outputs = binary_out is not None and [
        triton.InferRequestedOutput(name, binary_data=binary_out) for name in ("label", "score", "scores")
    ]
    tensor = input_tensor("text", TEXTS, [len(TEXTS), *columns], binary_in)
    result = client.infer("alpha", [tensor], outputs=outputs or None, request_id="my-id")
    check_same(result, classify(process, inputs=TEXTS, model="alpha"))
    response = result.get_response()
    assert (response["id"], response["model_name"], response["model_version"]) == ("my-id", "alpha", VERSION)


@pytest.mark.parametrize("binary", [True, False])
def test_pairs_are_two_tensors(process: Process, client: Any, binary: bool) -> None:
    others = list(reversed(TEXTS))
    tensors = [input_tensor("text_pair", others, [4], binary), input_tensor("text", TEXTS, [4], True)]
    result = client.infer("pairs", tensors)
    inputs = [{"text": text, "text_pair": other} for text, other in zip(TEXTS, others, strict=True)]
    expected = classify(process, inputs=inputs, model="pairs")
    assert labels_of(result) == [each["label"] for each in expected]
    np.testing.assert_allclose(result.as_numpy("score"), [each["score"] for each in expected], rtol=0, atol=1e-6)


def test_parameters_and_classes(process: Process, client: Any) -> None:
    tensor = input_tensor("text", TEXTS, [4], True)
    result = client.infer("topics", [tensor], parameters={"function_to_apply": "none"}, timeout=20_000_000, priority=1)
    check_same(result, classify(process, inputs=TEXTS, model="topics", function_to_apply="none"))
    classes = [triton.InferRequestedOutput("scores", class_count=1)]
    best = client.infer("topics", [tensor], outputs=classes).as_numpy("scores")
    assert best.shape == (4, 1)
    for (text,), expected in zip(best, classify(process, inputs=TEXTS, model="topics"), strict=True):
        score, index, label = text.decode().split(":")
        assert (label, "abc"[int(index)]) == (expected["label"], expected["label"])
        assert float(score) == pytest.approx(expected["score"], abs=1e-6)


def test_health_and_metadata(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("alpha")
    assert client.is_model_ready("alpha", VERSION)
    assert not client.is_model_ready("alpha", "1")
    assert not client.is_model_ready("nope")
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    assert client.get_model_metadata("pairs", VERSION) == {
        "name": "pairs",
        "versions": [VERSION],
        "platform": "onnxruntime_onnx",
        "inputs": [
            {"name": "text", "datatype": "BYTES", "shape": [-1]},
            {"name": "text_pair", "datatype": "BYTES", "shape": [-1]},
        ],
        "outputs": [
            {"name": "label", "datatype": "BYTES", "shape": [-1]},
            {"name": "score", "datatype": "FP32", "shape": [-1]},
            {"name": "scores", "datatype": "FP32", "shape": [-1, 3]},
        ],
    }
    config = client.get_model_config("alpha")
    assert config["max_batch_size"] == 0
    assert config["output"][-1] == {"name": "scores", "data_type": "TYPE_FP32", "dims": [-1, 2]}


@pytest.mark.parametrize(
    ("call", "status", "message"),
    [
        (lambda client, tensor: client.infer("nope", [tensor]), "404", "no model named 'nope'"),
        (lambda client, tensor: client.infer("alpha", [tensor], model_version="1"), "404", "has no version '1'"),
        (lambda client, tensor: client.infer("pairs", [tensor]), "400", "compares two texts"),
        (
            lambda client, tensor: client.infer("alpha", [tensor], outputs=[triton.InferRequestedOutput("logits")]),
            "400",
            "outputs[0].name",
        ),
        (lambda client, tensor: client.infer("alpha", [tensor], sequence_id=1), "400", "parameters.sequence_id"),
        (lambda client, tensor: client.infer("alpha", [tensor], timeout=1), "503", "the deadline passed"),
        (lambda client, tensor: client.get_model_metadata("nope"), "404", "no model named 'nope'"),
        (lambda client, tensor: client.get_inference_statistics("alpha"), "404", "no statistics"),
        (lambda client, tensor: client.get_inference_statistics(), "404", "no statistics"),
        (
            lambda client, tensor: client.infer("alpha", [tensor], request_compression_algorithm="gzip"),
            "415",
            "without content-encoding",
        ),
    ],
)
def test_errors_reach_the_client_as_the_protocol_has_them(client: Any, call: Any, status: str, message: str) -> None:
    with pytest.raises(InferenceServerException) as refused:
        call(client, input_tensor("text", TEXTS, [4], True))
    assert refused.value.status() == status
    assert message in refused.value.message()


def test_an_answer_need_not_be_compressed(client: Any, process: Process) -> None:
    result = client.infer("alpha", [input_tensor("text", TEXTS, [4], True)], response_compression_algorithm="gzip")
    check_same(result, classify(process, inputs=TEXTS))


def test_the_threaded_client_asks_several_at_once(client: Any, process: Process) -> None:
    tensor = input_tensor("text", TEXTS, [4], True)
    expected = classify(process, inputs=TEXTS)
    for pending in [client.async_infer("alpha", [tensor]) for _ in range(3)]:
        check_same(pending.get_result(), expected)


def test_the_asynchronous_client_works_the_same(process: Process) -> None:
    async def ask() -> Any:
        async with triton_aio.InferenceServerClient(f"127.0.0.1:{process.port}") as client:
            assert await client.is_server_ready()
            assert await client.is_model_ready("alpha", VERSION)
            assert (await client.get_model_metadata("alpha"))["versions"] == [VERSION]
            with pytest.raises(InferenceServerException, match="no model named 'nope'"):
                await client.infer("nope", [input_tensor("text", TEXTS, [4], False)])
            return [await client.infer("alpha", [input_tensor("text", TEXTS, [4], binary)]) for binary in (True, False)]

    expected = classify(process, inputs=TEXTS)
    for result in asyncio.run(ask()):
        check_same(result, expected)
