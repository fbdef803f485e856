"""Claims about graphs that answer otherwise on this machine than where they were exported."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ladabert_serve.cli import main
from ladabert_serve.errors import ArtefactError
from ladabert_serve.models.artefact import read_artefact
from ladabert_serve.models.inference import SELF_TEST_LIMIT
from ladabert_serve.models.loading import load_inference
from tests.service.tiny_artefact import write_artefact

INPUT_IDS = [[7, 5, 9, 11], [8, 12, 6, 10]]


@pytest.fixture
def folder(models_folder: Path) -> Path:
    return write_artefact(models_folder, precisions=("fp32", "int8"))


def logits_of(folder: Path) -> np.ndarray:
    """Return what the artefact's graph says here."""
    ids = np.array(INPUT_IDS)
    inference = load_inference(read_artefact(folder), "model.onnx", "cpu")
    return inference.backend.run(ids, np.ones_like(ids), np.zeros_like(ids))


def load_with(folder: Path, logits: Any, file: str = "model.onnx") -> None:
    """Load the fp32 graph of an artefact whose manifest promises these logits of `file`."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["self_test"] = {"input_ids": INPUT_IDS, "logits": {file: np.asarray(logits).tolist()}}
    path.write_text(json.dumps(manifest))
    load_inference(read_artefact(folder), "model.onnx", "cpu")


@pytest.mark.parametrize("factor", [1.0, 1 / (1 + 0.9 * SELF_TEST_LIMIT)])
def test_a_graph_that_answers_as_promised_or_nearly_so_is_loaded(folder: Path, factor: float) -> None:
    load_with(folder, factor * logits_of(folder))


@pytest.mark.parametrize("factor", [1 / (1 + 1.1 * SELF_TEST_LIMIT), -1.0, 0.0])
def test_a_graph_that_answers_otherwise_is_refused(folder: Path, factor: float) -> None:
    with pytest.raises(ArtefactError, match=r"model\.onnx: it does not compute here what it computed at its export"):
        load_with(folder, factor * logits_of(folder))


def test_logits_of_another_shape_are_refused(folder: Path) -> None:
    with pytest.raises(ArtefactError, match=r"self_test has logits of shape \(2, 3\), not \(2, 2\)"):
        load_with(folder, np.ones((2, 3)))


def test_rows_of_different_lengths_are_refused(folder: Path) -> None:
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["self_test"] = {"input_ids": [[7, 5], [8]], "logits": {"model.onnx": [[0.5, 1], [0.5, 1]]}}
    path.write_text(json.dumps(manifest))
    with pytest.raises(ArtefactError, match="self_test has rows of different lengths"):
        load_inference(read_artefact(folder), "model.onnx", "cpu")


def test_what_another_graph_answers_says_nothing_of_this_one(folder: Path) -> None:
    load_with(folder, -logits_of(folder), "model.int8.onnx")


def test_check_says_so_in_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ArtefactError):
        load_with(folder, -logits_of(folder))
    assert main(["check", str(folder)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "are off by 200% of their size" in line
    assert "LADABERT_PRECISION" in line
