"""Claims about OpenVINO as a provider; all but the first are skipped where the extra is not installed."""

import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from ladabert_serve.errors import ArtefactError, ProviderError
from ladabert_serve.models.artefact import read_artefact
from ladabert_serve.models.inference import Inference
from ladabert_serve.models.loading import load_inference
from ladabert_serve.models.tokenizer import TextInput, Tokens
from tests.service.conftest import serving
from tests.service.tiny_artefact import MAX_LENGTH, change_manifest, seal, write_artefact

TEXTS = ["a good film", "not very good", "bad", "the film a warm very bad good not the film", "good " * 30]


def test_openvino_that_is_not_installed_fails_at_the_start_and_says_what_to_install(
    models_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.delitem(sys.modules, "ladabert_serve.backends.openvino_runtime", raising=False)
    artefact = read_artefact(write_artefact(models_folder))
    with pytest.raises(ProviderError, match=r"openvino is not installed: pip install 'ladabert\[openvino\]'"):
        load_inference(artefact, "model.onnx", "openvino")


@pytest.fixture
def _openvino() -> None:
    pytest.importorskip("openvino", reason="needs the extra openvino: pip install 'ladabert[openvino]'")


@pytest.fixture(params=["single", "pair"])
def both(request: pytest.FixtureRequest, models_folder: Path, _openvino: None) -> tuple[Inference, Inference]:
    """Return the same artefact in OpenVINO and in ONNX Runtime."""
    artefact = read_artefact(write_artefact(models_folder, task=request.param))
    return load_inference(artefact, "model.onnx", "openvino"), load_inference(artefact, "model.onnx", "cpu")


def tokens(inference: Inference) -> list[Tokens]:
    pairs = inference.artefact.task == "pair"
    return [inference.tokenizer.tokenize(TextInput(text, "bad film" if pairs else None)) for text in TEXTS]


def run(inference: Inference, batch: list[Tokens]) -> Any:
    return np.array(inference.run(batch))


def test_openvino_answers_as_onnx_runtime(both: tuple[Inference, Inference]) -> None:
    openvino, onnx_runtime = both
    assert openvino.backend.provider == "openvino"
    batch = tokens(openvino)
    assert max(len(one.ids) for one in batch) == MAX_LENGTH
    np.testing.assert_allclose(run(openvino, batch), run(onnx_runtime, batch), rtol=0.02, atol=0.05)  # it may use bf16


def test_a_text_answers_the_same_alone_and_in_any_batch(both: tuple[Inference, Inference]) -> None:
    openvino, _ = both
    batch = tokens(openvino)
    alone = np.concatenate([run(openvino, [one]) for one in batch])
    for seed in range(4):
        order = random.Random(seed).sample(range(len(batch)), len(batch))
        together = run(openvino, [batch[index] for index in order])
        np.testing.assert_allclose(together, alone[order], rtol=1e-3, atol=1e-3)


@pytest.mark.usefixtures("_openvino")
@pytest.mark.parametrize(
    ("task", "precision", "tokens", "expected"),
    [("single", "fp32", 64, {8, 16}), ("single", "fp32", 8, {8}), ("single", "fp32", 0, set()),
     ("single", "int8", 64, set()), ("pair", "fp32", 64, set())],
)  # fmt: skip
def test_only_fp32_graphs_of_single_texts_are_compiled_for_one_length(
    task: str, precision: str, tokens: int, expected: set[int], models_folder: Path
) -> None:
    artefact = read_artefact(write_artefact(models_folder, task=task, precisions=(precision,)))
    inference = load_inference(artefact, artefact.graph_file("auto"), "openvino", openvino_fixed_tokens=tokens)
    assert inference.backend.fixed_lengths == expected  # type: ignore[attr-defined]


@pytest.mark.usefixtures("_openvino")
def test_the_server_serves_with_openvino_and_says_so(models_folder: Path) -> None:
    write_artefact(models_folder)
    with serving(models_folder, provider="openvino", runners=2) as server:
        assert server.get("/models/tiny").json()["provider"] == "openvino"
        answer = server.classify({"inputs": TEXTS * 8})
        assert answer.status_code == 200
        labels = [prediction["label"] for prediction in answer.json()["predictions"]]
        assert labels == labels[: len(TEXTS)] * 8


@pytest.mark.usefixtures("_openvino")
def test_a_graph_that_openvino_cannot_use_is_refused_in_one_line(models_folder: Path) -> None:
    folder = write_artefact(models_folder)
    model = onnx.load_from_string((folder / "model.onnx").read_bytes())
    model.graph.node[-1].op_type = "Unknown"
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    seal(folder)
    with pytest.raises(ArtefactError, match="OpenVINO cannot load") as raised:
        load_inference(read_artefact(folder), "model.onnx", "openvino")
    assert "\n" not in str(raised.value)


@pytest.mark.usefixtures("_openvino")
def test_a_graph_with_other_inputs_than_the_manifest_says_is_refused(models_folder: Path) -> None:
    folder = write_artefact(models_folder)
    change_manifest(folder, inputs=["input_ids", "attention_mask", "token_type_ids"])
    with pytest.raises(ArtefactError, match="token_type_ids"):
        load_inference(read_artefact(folder), "model.onnx", "openvino")
