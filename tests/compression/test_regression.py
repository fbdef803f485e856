"""A score in the place of a label, from rows with numbers to an artefact that answers with them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ladabert_compress.artefact.card import model_card
from ladabert_compress.artefact.export import export_artefact
from ladabert_compress.artefact.manifest import format_manifest
from ladabert_compress.cli.main import main
from ladabert_compress.data.texts import LabelledTexts, Texts
from ladabert_compress.errors import DataError, OptionError, RecipeError
from ladabert_compress.measure.inference import predict_logits
from ladabert_compress.measure.predictions import pearson, spearman
from ladabert_compress.recipe import ExportRecipe, FactorisationRecipe, PruningRecipe, Recipe
from ladabert_compress.report.evaluation import evaluate, format_evaluation
from ladabert_compress.report.page import write_report
from ladabert_compress.student.saved import load_student
from ladabert_compress.training.run import compress
from tests.compression.conftest import WORDS, labelled_texts, models_folder

SHORT = ("--max-length", "32")
CPU = torch.device("cpu")
LEARN = ("--batch-size", "8", "--learning-rate", "3e-3", "--max-length", "32", "--precision", "fp32", "--epochs", "10")


def scored_texts(rows: int) -> LabelledTexts:
    """Pairs whose score, from 0 to 5, says how many good words there are and how few bad ones."""
    first, second = labelled_texts(rows).texts, labelled_texts(rows + 1).texts[:rows]
    both = [f"{text} {pair}".split() for text, pair in zip(first, second, strict=True)]
    good = [sum((1, -1, 0)[WORDS.index(word) // 5] for word in words) for words in both]
    return LabelledTexts(first, second, tuple(f"{min(5.0, max(0.0, 2.5 + count / 2)):.2f}" for count in good))


def write_rows(path: Path, rows: LabelledTexts) -> Path:
    """As STS-B's file has them."""
    lines = [
        "\t".join((str(row), text, pair, score))
        for row, (text, pair, score) in enumerate(zip(rows.texts, rows.pairs or (), rows.labels, strict=True))
    ]
    path.write_text("\n".join(("index\tsentence1\tsentence2\tscore", *lines)) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def scorer(teacher_folder: Path, tmp_path: Path) -> Path:
    """A teacher that learnt scores, by the command."""
    train, dev = (write_rows(tmp_path / f"{name}.tsv", scored_texts(rows)) for name, rows in (("a", 160), ("b", 40)))
    out = tmp_path / "scorer"
    rows = ("--train", str(train), "--dev", str(dev), "--regression", "--label-names", "similarity")
    main(["finetune", "--base", str(teacher_folder), "--out", str(out), *rows, *LEARN])
    return out


@pytest.mark.slow
def test_a_teacher_of_scores_is_learnt_compressed_exported_and_measured(
    scorer: Path, tiny_recipe: Recipe, tmp_path: Path
) -> None:
    config = json.loads((scorer / "config.json").read_text(encoding="utf-8"))
    assert (config["problem_type"], config["id2label"]) == ("regression", {"0": "similarity"})
    assert json.loads((scorer / "finetune.json").read_text(encoding="utf-8"))["dev_pearson"] > 0.7

    dev = scored_texts(40)
    recipe = replace(
        tiny_recipe, factorisation=FactorisationRecipe(error="outputs"), pruning=PruningRecipe(score="fisher")
    )
    result = compress(scorer, recipe, scored_texts(120), dev, tmp_path / "run")
    history = json.loads((tmp_path / "run" / "history.json").read_text(encoding="utf-8"))
    assert all(-1 <= entry["pearson"] <= 1 for entry in history["evaluations"])

    folder = models_folder(tmp_path) / "tiny"
    manifest = export_artefact(result, folder, data_set="tiny")
    assert (manifest["problem_type"], manifest["labels"]) == ("regression", ["similarity"])
    assert manifest["calibration"] == {"temperature": 1.0, "rows": 0}
    logits = predict_logits(load_student(tmp_path / "run"), result.dev_data, CPU).numpy()[:, 0]
    scores = np.array(dev.labels, dtype=float)
    figures = manifest["evaluation"]["files"]["model.onnx"]
    assert figures["pearson"] == pytest.approx(np.corrcoef(logits, scores)[0, 1], abs=1e-3)
    assert manifest["evaluation"]["student_pearson"] == pytest.approx(np.corrcoef(logits, scores)[0, 1])
    assert "accuracy" not in figures
    counted = manifest["evaluation"]["distributions"]
    assert (counted["labels"], sum(counted["scores"]), len(counted["score_bounds"])) == ([40], 40, 19)
    assert max(counted["scores"]) <= 6  # about two each
    assert "Pearson correlation" in format_manifest(manifest)
    card = model_card(manifest)
    assert "type: pearsonr" in card
    assert "A regression of pairs of texts." in card
    assert "temperature" not in card

    found = evaluate(folder, dev, teacher_folder=scorer)
    assert found["files"]["model.onnx"]["spearman"] == pytest.approx(figures["spearman"])
    assert "Spearman" in format_evaluation(found)
    assert "calibration error" not in format_evaluation(found)
    for subject in (folder, tmp_path / "run"):
        with pytest.raises(OptionError, match="is a regression, a report is about labels"):
            write_report([subject], tmp_path / "page.html")


@pytest.mark.slow
def test_a_teacher_of_scores_is_exported_as_it_is_and_teaches_without_labels(
    scorer: Path, tiny_recipe: Recipe, tmp_path: Path
) -> None:
    models, rows = models_folder(tmp_path), write_rows(tmp_path / "rows.tsv", scored_texts(80))
    main(["export", "--teacher", str(scorer), "--train", str(rows), "--out", str(models / "whole"), *SHORT])
    manifest = json.loads((models / "whole" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["evaluation"]["files"]["model.onnx"]["agreement"] == pytest.approx(1, abs=1e-4)
    trial = manifest["export"]["files"].get("model.int8.onnx", {}).get("trial", {"metric": "pearson"})
    assert trial["metric"] == "pearson"

    texts = scored_texts(200)
    lenient = replace(tiny_recipe, export=ExportRecipe(int8_accuracy_loss=1, int8_divergence=100))
    unlabelled = Texts(texts.texts, texts.pairs)
    result = compress(scorer, lenient, None, None, tmp_path / "run", unlabelled_texts=unlabelled)
    figures = export_artefact(result, models / "tiny", data_set="tiny", split="held-out")["evaluation"]
    assert (figures["labels"], figures["teacher_pearson"]) == ("teacher", pytest.approx(1))
    for scores in figures["files"].values():
        assert scores["pearson"] == pytest.approx(scores["agreement"])


@pytest.mark.slow
def test_what_does_not_fit_scores_is_refused_before_anything_is_trained(
    scorer: Path, teacher_folder: Path, tiny_recipe: Recipe, tmp_path: Path
) -> None:
    texts = scored_texts(20)
    with pytest.raises(DataError, match="row 1: label 'alike' is no finite number"):
        compress(scorer, tiny_recipe, replace(texts, labels=("alike",) * 20), texts, tmp_path / "run")
    for folder, metric, fitting in ((scorer, "accuracy", "pearson"), (teacher_folder, "pearson", "accuracy")):
        wrong = replace(tiny_recipe, export=ExportRecipe(int8_metric=metric))  # type: ignore[arg-type]
        rows = texts if folder == scorer else labelled_texts(20)
        with pytest.raises(RecipeError, match=f"{metric} does not fit this teacher; choose auto, {fitting}"):
            compress(folder, wrong, rows, rows, tmp_path / "run")


numbers = st.lists(st.integers(-9, 9), min_size=2, max_size=30)


@given(numbers, st.integers(1, 5), st.integers(-3, 3))
def test_correlations_do_not_depend_on_scale_and_of_ranks_on_no_shape(
    values: list[int], scale: int, shift: int
) -> None:
    one = np.array(values, dtype=float)
    constant = len(set(values)) == 1
    assert pearson(one, one * scale + shift) == pytest.approx(0 if constant else 1)
    assert spearman(one, one**3) == pytest.approx(0 if constant else 1)
    assert spearman(one, -one) == pytest.approx(0 if constant else -1)


def test_correlations_are_those_of_the_textbook() -> None:
    one, other = (
        np.array([106, 100, 86, 101, 99, 103, 97, 113, 112, 110.0]),
        np.array([7, 27, 2, 50, 28, 29, 20, 12, 6, 17.0]),
    )
    assert spearman(one, other) == pytest.approx(-29 / 165)
    assert pearson(one, other) == pytest.approx(np.corrcoef(one, other)[0, 1])
    assert spearman(np.array([1.0, 2.0, 2.0, 3.0]), np.array([1.0, 2.0, 3.0, 4.0])) == pytest.approx(0.9486833)
