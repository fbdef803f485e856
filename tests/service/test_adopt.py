"""Claims about exports of other tools: adopted, they are served with the scores that transformers gives."""

import json
import logging
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnxruntime.quantization import quantize_dynamic
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from ladabert_serve.cli import main
from ladabert_serve.models.adoption import adopt
from ladabert_serve.models.artefact import read_artefact
from ladabert_serve.models.export_folder import POSITIONS_AFTER_PADDING, POSITIONS_FROM_ZERO
from ladabert_serve.models.loading import try_artefact
from tests.service.conftest import Server, serving
from tests.service.exports import FAMILIES, LABELS, LENGTH, READ_TYPES, write_export, write_tiny_export
from tests.service.tiny_artefact import build_graph, build_tokenizer

TEXTS = [
    "a good film",
    "",
    "nobody answered my letters and I don't know why they wouldn't; " * 3,
    " Naïve café,  日本語 12 </s> [SEP]",
    "better than the book",
]
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def classifiers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Any]]:
    """Return each family's export with the classifier that it was made of."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("exports")
    return {family: (folder / family, write_export(folder / family, family)) for family in FAMILIES}


@pytest.fixture(scope="module")
def models(classifiers: dict[str, tuple[Path, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a models folder with every export adopted for single texts and for pairs."""
    models = tmp_path_factory.mktemp("adopted")
    for family, (export, _) in classifiers.items():
        for task in ("single", "pair"):
            assert main(["adopt", str(export), "--out", str(models / f"{family}-{task}"), "--task", task]) == 0
    return models


@pytest.fixture(scope="module")
def server(models: Path) -> Iterator[Server]:
    """Return a running application that serves them."""
    with serving(models) as server:
        yield server


def scores_of(answer: Any) -> np.ndarray[Any, Any]:
    """Return the scores of an answer in logit order (B, labels)."""
    rows = [{each["label"]: each["score"] for each in row["scores"]} for row in answer.json()["predictions"]]
    return np.array([[row[label] for label in LABELS.values()] for row in rows])


def expected_scores(
    export: Path, classifier: Any, texts: list[str], pairs: list[str] | None, side: str = "right"
) -> np.ndarray[Any, Any]:
    """Return the scores (B, labels) that transformers gives a padded batch, truncated at the tokens that fit."""
    tokenizer = AutoTokenizer.from_pretrained(export, truncation_side=side)
    types = export.name in READ_TYPES
    batch = tokenizer(
        texts,
        pairs,
        padding=True,
        truncation=True,
        max_length=LENGTH,
        return_tensors="pt",
        return_token_type_ids=types,
    )
    with torch.inference_mode():
        scores: np.ndarray[Any, Any] = torch.softmax(classifier(**batch).logits, dim=1).numpy()
    return scores


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("family", FAMILIES)
def test_single_texts_get_the_scores_of_transformers(
    classifiers: dict[str, tuple[Path, Any]], server: Server, family: str, side: str
) -> None:
    expected = expected_scores(*classifiers[family], TEXTS, None, side)
    assert np.ptp(expected, axis=0).max() > 0.05  # the texts get different answers
    body = {"inputs": TEXTS, "model": f"{family}-single", "truncation_direction": side}
    together = server.classify(body)
    assert together.status_code == 200, together.text
    np.testing.assert_allclose(scores_of(together), expected, atol=TOLERANCE)
    for text, scores in zip(TEXTS, expected, strict=True):
        alone = server.classify({**body, "inputs": text})
        np.testing.assert_allclose(scores_of(alone), [scores], atol=TOLERANCE)


@pytest.mark.parametrize("family", FAMILIES)
def test_pairs_get_the_scores_of_transformers(
    classifiers: dict[str, tuple[Path, Any]], server: Server, family: str
) -> None:
    expected = expected_scores(*classifiers[family], TEXTS, TEXTS[::-1])
    inputs = [{"text": text, "text_pair": other} for text, other in zip(TEXTS, TEXTS[::-1], strict=True)]
    together = server.classify({"inputs": inputs, "model": f"{family}-pair"})
    np.testing.assert_allclose(scores_of(together), expected, atol=TOLERANCE)


def test_every_known_model_type_is_tried_here() -> None:
    assert FAMILIES.keys() == POSITIONS_FROM_ZERO | POSITIONS_AFTER_PADDING


def test_a_model_reads_as_many_tokens_as_it_has_positions_for(models: Path) -> None:
    lengths = {folder.name: read_artefact(folder).max_length for folder in models.iterdir()}
    assert set(lengths.values()) == {LENGTH}


def test_an_adopted_artefact_holds_what_the_reader_checks(models: Path) -> None:
    artefact = read_artefact(models / "roberta-single")
    assert artefact.pad_token_id == 1
    assert artefact.inputs == ("input_ids", "attention_mask")
    assert artefact.labels == tuple(LABELS.values())
    assert artefact.manifest["compression"]["method"] == "none"
    assert np.shape(artefact.manifest["self_test"]["logits"]["model.onnx"]) == (4, len(LABELS))
    assert sorted(path.name for path in artefact.folder.iterdir()) == ["manifest.json", "model.onnx", "tokenizer.json"]
    try_artefact(artefact)
    assert main(["check", str(artefact.folder)]) == 0


@pytest.fixture(scope="module")
def quantised(classifiers: dict[str, tuple[Path, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an export as transformers.js has it: both graphs in `onnx`, the int8 one quantised dynamically."""
    export, _ = classifiers["bert"]
    folder = tmp_path_factory.mktemp("quantised") / "export"
    shutil.copytree(export, folder / "onnx")
    for path in export.glob("*.json"):
        (folder / "onnx" / path.name).rename(folder / path.name)
    logging.disable()  # its advice
    quantize_dynamic(folder / "onnx" / "model.onnx", folder / "onnx" / "model_quantized.onnx")
    logging.disable(logging.NOTSET)
    return folder


def test_an_int8_graph_whose_answers_depend_on_the_batch_is_left_out_beside_fp32(
    quantised: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["adopt", str(quantised), "--out", str(tmp_path / "mine")]) == 0
    assert read_artefact(tmp_path / "mine").graph_files() == ["model.onnx"]
    (line,) = capsys.readouterr().err.splitlines()
    assert "left out" in line
    assert "model_quantized.onnx" in line
    assert "fixed scales" in line


def test_an_int8_graph_whose_answers_depend_on_the_batch_is_refused_alone(
    quantised: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["adopt", str(quantised), "--out", str(tmp_path / "mine"), "--precision", "int8"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "fixed scales" in line
    assert not any(tmp_path.iterdir())


def test_both_graphs_are_adopted_and_the_fp32_one_is_the_default(tmp_path: Path) -> None:
    export = write_tiny_export(tmp_path / "export")
    shutil.copy(export / "model.onnx", export / "model_quantized.onnx")
    artefact, left_out = adopt(export, tmp_path / "mine")
    assert not left_out
    assert artefact.graph_files() == ["model.onnx", "model.int8.onnx"]
    assert artefact.manifest["default_file"] == "model.onnx"
    assert set(artefact.manifest["self_test"]["logits"]) == {"model.onnx", "model.int8.onnx"}
    assert artefact == read_artefact(tmp_path / "mine")
    only, _ = adopt(export, tmp_path / "only", precision="int8")
    assert only.graph_files() == ["model.int8.onnx"]


@pytest.mark.parametrize(
    ("config", "tokenizer_config", "asked_for", "expected"),
    [
        ({}, {"model_max_length": 64}, None, 64),
        ({}, {"model_max_length": int(1e30)}, None, 512),
        ({}, {"model_max_length": 1e30}, None, 512),
        ({}, {}, None, 512),
        ({}, {"model_max_length": 64}, 32, 32),
        ({"model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 1}, {}, None, 512),
    ],
)
def test_the_length_is_the_least_of_what_model_tokenizer_and_caller_say(
    tmp_path: Path, config: Any, tokenizer_config: Any, asked_for: int | None, expected: int
) -> None:
    export = write_tiny_export(tmp_path / "export", **config)
    (export / "tokenizer_config.json").write_text(json.dumps(tokenizer_config))
    artefact, _ = adopt(export, tmp_path / "mine", max_length=asked_for)
    assert artefact.max_length == expected


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (None, "single_label"),
        ("single_label_classification", "single_label"),
        ("multi_label_classification", "multi_label"),
    ],
)
def test_the_problem_type_is_that_of_the_configuration(tmp_path: Path, said: str | None, expected: str) -> None:
    artefact, _ = adopt(write_tiny_export(tmp_path / "export", problem_type=said), tmp_path / "mine")
    assert artefact.problem_type == expected


@pytest.mark.parametrize(
    ("said", "expected"), [(None, "multi_label"), ("regression", "regression"), ("multi_label_classification",) * 2]
)
def test_one_output_gets_a_sigmoid_or_is_the_number_itself(tmp_path: Path, said: str | None, expected: str) -> None:
    graph = build_graph(1, build_tokenizer().get_vocab_size(), seed=1)
    export = write_tiny_export(tmp_path / "export", graph, id2label={"0": "stars"}, problem_type=said)
    artefact, _ = adopt(export, tmp_path / "mine")
    assert (artefact.problem_type, artefact.labels) == (expected.removesuffix("_classification"), ("stars",))


def test_labels_that_transformers_leaves_out_have_their_default_names(tmp_path: Path) -> None:
    export = write_tiny_export(tmp_path / "export")
    config = json.loads((export / "config.json").read_text())
    del config["id2label"]
    (export / "config.json").write_text(json.dumps(config))
    assert adopt(export, tmp_path / "mine")[0].labels == ("LABEL_0", "LABEL_1")


def test_truncation_and_padding_of_the_last_call_before_the_export_are_left_out(tmp_path: Path) -> None:
    baked = build_tokenizer()
    export = write_tiny_export(tmp_path / "export")
    plain, _ = adopt(export, tmp_path / "plain")
    baked.enable_truncation(5)
    baked.enable_padding(length=32)
    (export / "tokenizer.json").write_text(baked.to_str())
    artefact, _ = adopt(export, tmp_path / "mine")
    tokenizer = Tokenizer.from_file(str(artefact.folder / "tokenizer.json"))
    assert tokenizer.truncation is None
    assert tokenizer.padding is None
    assert artefact.manifest["self_test"] == plain.manifest["self_test"]


def test_a_folder_of_links_as_in_the_cache_of_a_hub_becomes_plain_files(tmp_path: Path) -> None:
    export = write_tiny_export(tmp_path / "blobs")
    (tmp_path / "snapshot").mkdir()
    for path in export.iterdir():
        (tmp_path / "snapshot" / path.name).symlink_to(path)
    artefact, _ = adopt(tmp_path / "snapshot", tmp_path / "mine")
    assert not any(path.is_symlink() for path in artefact.folder.iterdir())
    try_artefact(artefact)


def test_the_version_follows_from_the_files(tmp_path: Path) -> None:
    export = write_tiny_export(tmp_path / "export")
    first, again = (adopt(export, tmp_path / name)[0].version for name in ("first", "again"))
    shorter = build_graph(2, build_tokenizer().get_vocab_size(), seed=2)
    (export / "model.onnx").write_bytes(shorter)
    assert first == again != adopt(export, tmp_path / "other")[0].version


def test_neither_torch_nor_transformers_nor_onnx_is_needed(tmp_path: Path) -> None:
    export = write_tiny_export(tmp_path / "export")
    out = tmp_path / "mine"
    code = (
        "import sys\n"
        "from ladabert_serve.cli import main\n"
        f"assert main(['adopt', {str(export)!r}, '--out', {str(out)!r}]) == 0\n"
        "assert not {'torch', 'transformers', 'onnx'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("mine: version ")
