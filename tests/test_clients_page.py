"""The page of clients, executed: each call gives the labels and scores of POST /classify."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.service.test_server import Process, started
from tests.service.tiny_artefact import write_artefact
from tests.test_docs import REPOSITORY

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("server")]

PAGE = (REPOSITORY / "docs" / "clients.md").read_text(encoding="utf-8")
URL = "http://127.0.0.1:8000"
MODEL = "sst2-x5"
TEXTS = ["a gripping film", "dull from start to end"]
LABELS = ("negative", "positive")
LINE = re.compile(r"^\| `([\w.]+)`.* \| ([\d.]+) \|", re.MULTILINE)


def section(title: str, language: str) -> list[str]:
    """Return the blocks of a section in this language."""
    (text,) = re.findall(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """Return a server with a model of the page's name and labels."""
    models = tmp_path_factory.mktemp("models")
    write_artefact(models, MODEL, labels=LABELS, seed=1)
    with started(models) as process:
        yield process


@pytest.fixture
def expected(process: Process) -> list[dict[str, Any]]:
    """Return what POST /classify answers."""
    predictions: list[dict[str, Any]] = json.loads(
        process.request("POST", "/classify", json.dumps({"inputs": TEXTS}))[1]
    )["predictions"]
    return predictions


def curl(process: Process, title: str) -> Any:
    """Send what the section's curl command sends, and return the answer."""
    (block,) = section(title, "console")
    words = shlex.split(block.removeprefix("$ "))
    (url,) = (word for word in words if word.startswith(URL))
    name, value = words[words.index("-H") + 1].split(": ")
    status, body = process.request("POST", url.removeprefix(URL), words[words.index("-d") + 1], {name: value})
    assert status == 200, body
    return json.loads(body)


def run(process: Process, title: str) -> dict[str, Any]:
    """Run the section's Python, and return its names."""
    names: dict[str, Any] = {}
    (block,) = section(title, "python")
    exec(block.replace("127.0.0.1:8000", f"127.0.0.1:{process.port}"), names)  # the page is ours
    return names


def test_httpx(process: Process, expected: list[dict[str, Any]]) -> None:
    for found, each in zip(run(process, "httpx")["predictions"], expected, strict=True):
        assert (found["label"], found["score"]) == (each["label"], pytest.approx(each["score"], abs=1e-6))


def test_openais_client(process: Process, expected: list[dict[str, Any]]) -> None:
    for found, each in zip(run(process, "openai")["classes"], expected, strict=True):
        assert found["label"] == each["label"]
        assert max(found["probs"]) == pytest.approx(each["score"], abs=1e-6)


def test_hugging_faces_client(process: Process, expected: list[dict[str, Any]]) -> None:
    names = run(process, "huggingface_hub")
    assert (names["label"], names["score"]) == (expected[0]["label"], pytest.approx(expected[0]["score"], abs=1e-6))


def test_vllms_route(process: Process, expected: list[dict[str, Any]]) -> None:
    for found, each in zip(curl(process, "vLLM's route with curl")["data"], expected, strict=True):
        assert found["label"] == each["label"]
        assert max(found["probs"]) == pytest.approx(each["score"], abs=1e-6)


def test_text_embeddings_inferences_route(process: Process, expected: list[dict[str, Any]]) -> None:
    for found, each in zip(curl(process, "text-embeddings-inference's route with curl"), expected, strict=True):
        assert found[0] == {"label": each["label"], "score": pytest.approx(each["score"], abs=1e-6)}


def test_tritons_clients(process: Process, expected: list[dict[str, Any]]) -> None:
    names: dict[str, Any] = {}
    first, classes, asynchronous = section("Triton's client", "python")
    for block in (first, classes, asynchronous):
        exec(block.replace("127.0.0.1:8000", f"127.0.0.1:{process.port}"), names)  # the page is ours
        if block != classes:
            labels, scores = (names["result"].as_numpy(name) for name in ("label", "score"))
            assert [label.decode() for label in labels] == [each["label"] for each in expected]
            np.testing.assert_allclose(scores, [each["score"] for each in expected], rtol=0, atol=1e-6)
    best = [text.decode().split(":") for text in names["classes"][:, 0]]
    assert [(int(index), label) for _, index, label in best] == [
        (LABELS.index(each["label"]), each["label"]) for each in expected
    ]


def test_the_open_inference_protocol(process: Process, expected: list[dict[str, Any]]) -> None:
    label, score, _ = (output["data"] for output in curl(process, "Open Inference Protocol with curl")["outputs"])
    assert label == [each["label"] for each in expected]
    assert score == pytest.approx([each["score"] for each in expected], abs=1e-6)


def test_kserves_first_protocol(process: Process, expected: list[dict[str, Any]]) -> None:
    predictions = curl(process, "KServe v1 with curl")["predictions"]
    for prediction, each in zip(predictions, expected, strict=True):
        assert prediction[str(LABELS.index(each["label"]))] == pytest.approx(each["score"], abs=1e-6)


def test_the_page_names_the_versions_that_the_tests_install() -> None:
    pinned = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines()
    named = {client.partition(".")[0]: version for client, version in LINE.findall(PAGE)}
    assert named
    for package, version in named.items():
        assert f"{package}=={version}" in pinned
