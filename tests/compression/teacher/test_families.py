"""Every family that is supported gives transformers' own logits, in PyTorch, in the graph and in the service."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ladabert_compress.artefact.export import export_artefact
from ladabert_compress.errors import DataError, TeacherError
from ladabert_compress.graph.encoder import build_bert_graph
from ladabert_compress.graph.session import OnnxSession, onnx_logits
from ladabert_compress.measure.inference import predict_logits
from ladabert_compress.recipe import Recipe
from ladabert_compress.student.matrices import walk_matrices
from ladabert_compress.student.saved import load_student
from ladabert_compress.teacher.folder import load_teacher
from ladabert_compress.training.run import compress
from ladabert_serve.models.artefact import read_artefact
from ladabert_serve.models.loading import load_inference
from ladabert_serve.models.scores import apply_function, default_function, rank
from ladabert_serve.models.tokenizer import TextInput
from tests.compression.conftest import models_folder
from tests.compression.teacher.families import FAMILIES, mixed_texts, save_family

ROWS = 200
CPU = torch.device("cpu")


@pytest.mark.parametrize("pairs", [False, True], ids=["single", "pair"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_teacher_gives_the_logits_of_transformers(family: str, pairs: bool, tmp_path: Path) -> None:
    model, tokenizer = save_family(tmp_path, family)
    teacher = load_teacher(tmp_path)
    texts, longest = mixed_texts(ROWS, pairs=pairs), teacher.model.config.max_position_embeddings
    data = teacher.encode("rows", texts, longest)
    lengths = set(data.lengths.tolist())
    assert longest in lengths  # the last position is read
    assert pairs or min(lengths) < longest / 2
    inputs = tokenizer(
        list(texts.texts),
        None if texts.pairs is None else list(texts.pairs),
        truncation=True,
        max_length=longest,
        padding=True,
        return_tensors="pt",
    )
    with torch.inference_mode():
        expected = model(**inputs).logits
    assert (predict_logits(teacher.model, data, CPU) - expected).abs().max() < 1e-4
    graph = build_bert_graph(teacher.model, texts.task, max_length=longest)
    assert np.abs(onnx_logits(OnnxSession(graph.SerializeToString()), data) - expected.numpy()).max() < 1e-4
    assert expected.std() > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("pairs", [False, True], ids=["single", "pair"])
@pytest.mark.parametrize("family", ["distilbert", "roberta", "xlm-roberta", "electra-small"])
def test_a_student_of_any_family_is_compressed_exported_and_served(
    family: str, pairs: bool, tiny_recipe: Recipe, tmp_path: Path
) -> None:
    save_family(tmp_path / "teacher", family)
    dev = mixed_texts(24, pairs=pairs)
    result = compress(tmp_path / "teacher", tiny_recipe, mixed_texts(60, pairs=pairs), dev, tmp_path / "run")
    manifest = export_artefact(result, models_folder(tmp_path) / "tiny", data_set="tiny")
    assert manifest["compression"]["reached_ratio"] == pytest.approx(4.0, rel=0.05)
    artefact = read_artefact(tmp_path / "models" / "tiny")
    inference = load_inference(artefact, "model.onnx", "cpu")
    inputs = [TextInput(text, dev.pairs[row] if dev.pairs else None) for row, text in enumerate(dev.texts)]
    served = np.array(inference.run([inference.tokenizer.tokenize(text) for text in inputs]))
    expected = predict_logits(load_student(tmp_path / "run"), result.dev_data, CPU).numpy()
    assert np.abs(served - expected).max() < 1e-4


@pytest.mark.slow
def test_the_one_logit_of_a_cross_encoder_is_a_score_between_0_and_1(tiny_recipe: Recipe, tmp_path: Path) -> None:
    save_family(tmp_path / "teacher", "xlm-roberta", id2label={0: "relevant"})
    teacher = load_teacher(tmp_path / "teacher")
    assert (teacher.labels, teacher.problem_type) == (("relevant",), "multi_label")
    train, dev = (
        replace(mixed_texts(rows, pairs=True), labels=("1", "0", "relevant", "") * (rows // 4)) for rows in (60, 24)
    )
    result = compress(tmp_path / "teacher", tiny_recipe, train, dev, tmp_path / "run")
    assert result.dev_data.labels.tolist() == [[1], [0], [1], [0]] * 6
    manifest = export_artefact(result, models_folder(tmp_path) / "tiny", data_set="tiny")
    artefact = read_artefact(tmp_path / "models" / "tiny")
    inference = load_inference(artefact, "model.onnx", "cpu")
    assert dev.pairs is not None
    pairs = [TextInput(*pair) for pair in zip(dev.texts, dev.pairs, strict=True)]
    served = inference.run([inference.tokenizer.tokenize(pair) for pair in pairs])
    logits = predict_logits(load_student(tmp_path / "run"), result.dev_data, CPU)
    expected = (logits / manifest["calibration"]["temperature"]).sigmoid().flatten().tolist()
    function = default_function(artefact.problem_type)
    for row, score in zip(served, expected, strict=True):
        assert not isinstance(row, Exception)
        (answer,) = rank(artefact.labels, apply_function(row, function, artefact.temperature), None)
        assert answer == {"label": "relevant", "score": pytest.approx(score, abs=1e-4)}

    with pytest.raises(DataError, match=r"row 1: label '0\.7' is not one of 0, 1"):
        teacher.encode("rows", replace(dev, labels=("0.7",) * 24), 32)


def test_a_number_in_place_of_a_class_is_a_regression_and_one_class_is_refused(tmp_path: Path) -> None:
    save_family(tmp_path / "stars", "roberta", id2label={0: "stars"}, problem_type="regression")
    teacher = load_teacher(tmp_path / "stars")
    assert (teacher.labels, teacher.problem_type) == (("stars",), "regression")
    save_family(tmp_path / "one", "roberta", id2label={0: "stars"}, problem_type="regression")
    config = tmp_path / "one/config.json"
    config.write_text(config.read_text().replace('"regression"', '"single_label_classification"'))
    with pytest.raises(TeacherError, match=r"one: .*single_label_classification"):
        load_teacher(tmp_path / "one")


def test_a_projection_of_the_embeddings_is_left_alone(tmp_path: Path) -> None:
    save_family(tmp_path, "electra-small")
    names = [matrix.name for matrix, _ in walk_matrices(load_teacher(tmp_path).model)]
    assert "bert.embeddings.word_embeddings" in names
    assert "bert.embeddings.projection" not in names


@pytest.mark.parametrize("kind", ["deberta-v2", "modernbert", "mpnet", "albert", "of_my_own"])
def test_another_family_is_refused_in_one_line_that_says_which_work(kind: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}), encoding="utf-8")
    families = "BERT, DistilBERT, RoBERTa, CamemBERT, XLM-RoBERTa, ELECTRA"
    with pytest.raises(TeacherError, match=f"^.*: is a {kind} model; supported are {families}$"):
        load_teacher(tmp_path)


def test_weights_without_a_head_are_refused(tmp_path: Path) -> None:
    model, _ = save_family(tmp_path, "roberta")
    model.base_model.save_pretrained(tmp_path)  # type: ignore[operator]
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    config["architectures"] = ["RobertaForSequenceClassification"]
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(
        TeacherError, match=r"its weights lack 4 parameters, classifier\.dense\.bias among them; fine-tune"
    ):
        load_teacher(tmp_path)
