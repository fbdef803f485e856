"""Teachers of other shapes and tasks, from the Hugging Face folder to the predictions of the service."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertForSequenceClassification, PreTrainedTokenizerFast

from ladabert_compress.artefact.export import export_artefact
from ladabert_compress.artefact.manifest import format_manifest
from ladabert_compress.data.texts import LabelledTexts
from ladabert_compress.errors import TeacherError
from ladabert_compress.measure.inference import predict_logits
from ladabert_compress.recipe import FactorisationRecipe, Recipe
from ladabert_compress.report.evaluation import evaluate
from ladabert_compress.report.page import write_report
from ladabert_compress.student.saved import load_student
from ladabert_compress.teacher.folder import TeacherCard, load_teacher, save_teacher
from ladabert_compress.training.run import compress
from ladabert_serve.models.artefact import read_artefact
from ladabert_serve.models.loading import load_inference
from ladabert_serve.models.scores import apply_function, default_function
from ladabert_serve.models.tokenizer import TextInput
from tests.compression.conftest import labelled_texts, models_folder, tiny_config

pytestmark = pytest.mark.slow


def random_teacher(folder: Path, tokenizer: PreTrainedTokenizerFast, **changes: object) -> Path:
    """A random teacher that differs from the tiny one as told."""
    config = tiny_config()
    for name, value in changes.items():
        setattr(config, name, value)
    torch.manual_seed(0)
    model = BertForSequenceClassification._from_config(config, attn_implementation="eager")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(5) if parameter.ndim == 2 else parameter.add_(0.1 * torch.randn_like(parameter))
    save_teacher(folder, model, tokenizer, TeacherCard("tiny", "random", "Apache-2.0"), {})
    return folder


def texts_with(labels: list[str], rows: int, *, pairs: bool = False) -> LabelledTexts:
    texts = labelled_texts(rows).texts
    return LabelledTexts(texts, texts[::-1] if pairs else None, tuple(labels[row % len(labels)] for row in range(rows)))


NAMES = dict(enumerate(("world", "sports", "business", "science")))
CASES: dict[str, tuple[dict[str, object], list[str], bool]] = {
    "one narrow layer": ({"num_hidden_layers": 1, "hidden_size": 16, "intermediate_size": 24}, ["0", "1"], False),
    "five layers": ({"num_hidden_layers": 5, "num_attention_heads": 2}, ["negative", "positive"], False),
    "ReLU": ({"hidden_act": "relu"}, ["negative", "positive"], False),
    "four classes": ({"id2label": NAMES}, ["world", "sports", "business", "science"], False),
    "pairs of three classes": ({"id2label": {0: "a", 1: "b", 2: "c"}}, ["a", "b", "c"], True),
    "multi-label": (
        {"id2label": NAMES, "problem_type": "multi_label_classification"},
        ["world", "", "sports,science", "science", "world,sports,business,science"],
        False,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_any_bert_classifier_is_compressed_exported_and_served(
    case: str, tokenizer: PreTrainedTokenizerFast, tiny_recipe: Recipe, tmp_path: Path
) -> None:
    changes, labels, pairs = CASES[case]
    teacher = random_teacher(tmp_path / "teacher", tokenizer, **changes)
    dev = texts_with(labels, 24, pairs=pairs)
    result = compress(teacher, tiny_recipe, texts_with(labels, 60, pairs=pairs), dev, tmp_path / "run")
    folder = models_folder(tmp_path) / "tiny"
    manifest = export_artefact(result, folder, data_set="tiny")
    assert manifest["compression"]["reached_ratio"] == pytest.approx(4.0, rel=0.03)
    assert manifest["task"] == ("pair" if pairs else "single")
    assert "non-zero parameters" in format_manifest(manifest)

    artefact = read_artefact(folder)
    inference = load_inference(artefact, "model.onnx", "cpu")
    inputs = [TextInput(text, dev.pairs[row] if dev.pairs else None) for row, text in enumerate(dev.texts)]
    served = inference.run([inference.tokenizer.tokenize(text) for text in inputs])
    function = default_function(artefact.problem_type)
    scores = np.array([apply_function(row, function, artefact.temperature) for row in served])  # type: ignore[arg-type]

    logits = predict_logits(load_student(tmp_path / "run"), result.dev_data, torch.device("cpu"))
    scaled = logits / manifest["calibration"]["temperature"]
    expected = scaled.sigmoid() if case == "multi-label" else scaled.softmax(dim=1)
    assert np.abs(scores - expected.numpy()).max() < 1e-4

    figures = evaluate(folder, dev, teacher_folder=teacher)
    right = (
        ((scores > 0.5) == np.array(result.dev_data.labels)).all(axis=1)
        if case == "multi-label"
        else scores.argmax(axis=1) == np.array(result.dev_data.labels)
    )
    assert figures["files"]["model.onnx"]["accuracy"] == pytest.approx(right.mean())

    write_report([tmp_path / "run", folder], tmp_path / "page.html", texts=dev, teacher_folder=teacher)
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert ("true positives" if case == "multi-label" else "label ↓ prediction →") in page
    assert all(label in page for label in result.teacher.labels)


def test_ranks_of_a_multi_label_teacher_are_shared_out_by_sensitivity(
    tokenizer: PreTrainedTokenizerFast, tiny_recipe: Recipe, tmp_path: Path
) -> None:
    changes, labels, _ = CASES["multi-label"]
    recipe = replace(
        tiny_recipe,
        budget=replace(tiny_recipe.budget, objective="latency", p_svd=1.0, p_embedding_svd=1.0),
        factorisation=FactorisationRecipe(error="outputs", ranks="sensitivity"),
    )
    teacher = random_teacher(tmp_path / "teacher", tokenizer, **changes)
    result = compress(teacher, recipe, texts_with(labels, 60), texts_with(labels, 24), tmp_path / "run")
    assert result.student.ratio() == pytest.approx(4.0, rel=0.1)
    attention = [rank for name, rank in result.student.ranks.items() if ".attention." in name]
    assert len(set(attention)) > 1  # all have one shape: equal shares would be equal ranks


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("problem_type", "regression", "is a regression with 2 outputs"),
        ("vocab_size", 10, "put the model's own tokenizer there"),
        ("hidden_act", "silu", "hidden_act is 'silu'; supported are gelu, relu"),
        ("position_embedding_type", "relative_key", "position_embedding_type is 'relative_key'; only 'absolute'"),
    ],
)
def test_a_teacher_that_cannot_be_compressed_is_refused(
    key: str, value: object, message: str, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    folder = random_teacher(tmp_path / "teacher", tokenizer, **({key: value} if key == "vocab_size" else {}))
    config_file = folder / "config.json"
    config = json.loads(config_file.read_text(encoding="utf-8"))
    config_file.write_text(json.dumps(config | {key: value}), encoding="utf-8")
    with pytest.raises(TeacherError, match=message):
        load_teacher(folder)
