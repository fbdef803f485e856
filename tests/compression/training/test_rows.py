"""Rows without labels and rows made of others: what a run learns from, and what it is measured on."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from ladabert_compress.artefact.export import export_artefact
from ladabert_compress.artefact.manifest import format_manifest
from ladabert_compress.cli.main import main
from ladabert_compress.data.batches import EncodedTexts
from ladabert_compress.data.labels import NO_LABEL
from ladabert_compress.data.texts import Texts
from ladabert_compress.errors import DataError
from ladabert_compress.measure.inference import predict_logits
from ladabert_compress.recipe import AugmentRecipe, ExportRecipe, Recipe
from ladabert_compress.teacher.folder import Teacher, load_teacher
from ladabert_compress.training.distillation import LadaBertLearner
from ladabert_compress.training.loop import train
from ladabert_compress.training.rows import RunRows, Sources, augmented_rows, divide_rows
from ladabert_compress.training.run import compress
from tests.compression.conftest import labelled_texts, models_folder


@pytest.fixture
def teacher(teacher_folder: Path) -> Teacher:
    return load_teacher(teacher_folder)


def without_labels(rows: int) -> Texts:
    texts = labelled_texts(rows)
    return Texts(texts.texts, texts.pairs)


def ids(data: EncodedTexts) -> set[tuple[int, ...]]:
    return {tuple(row) for row in data.rows}


def weights(
    folder: Path, recipe: Recipe, rows: RunRows, teacher: Teacher, *, stops_at: int = 10**9
) -> dict[str, Tensor]:
    """The student's weights; ``stops_at`` ends the process after that many steps, the first time."""
    rows_of_epoch = augmented_rows(teacher, recipe, rows.train_texts)
    assert rows_of_epoch is not None

    class Mortal(LadaBertLearner):
        steps = 0

        def losses(self, batch: object) -> dict[str, Tensor]:
            if self.steps == stops_at:
                raise KeyboardInterrupt
            self.steps += 1
            return super().losses(batch)  # type: ignore[arg-type]

    learner = Mortal(teacher.model, recipe, 8, rows_of_epoch(0))
    train(
        learner,
        rows.train,
        rows.dev,
        recipe.training,
        total_steps=learner.timetable.total_steps,
        evaluate_every=100,
        device=torch.device("cpu"),
        checkpoint=folder / "checkpoint.pt",
        checkpoint_every_s=2,
        clock=itertools.count().__next__,  # a second for each step
        resume=True,
        rows_of_epoch=rows_of_epoch,
    )
    return learner.module.state_dict()


def test_joined_rows_are_learnt_from_alone_and_every_other_set_keeps_its_rows(
    teacher: Teacher, tiny_recipe: Recipe
) -> None:
    recipe = replace(tiny_recipe, augment=AugmentRecipe(joined_share=0.5))
    sources = Sources(labelled_texts(100), labelled_texts(30))
    plain, rows = (divide_rows(teacher, one.training, sources) for one in (tiny_recipe, recipe))
    assert rows == plain  # so the temperature is fitted on rows as they are
    rows_of_epoch = augmented_rows(teacher, recipe, rows.train_texts)
    assert rows_of_epoch is not None
    joined = rows_of_epoch(0)
    assert len(joined) == len(rows.train)
    assert 0.3 < np.mean(joined.lengths > rows.train.lengths) < 0.7
    assert augmented_rows(teacher, tiny_recipe, plain.train_texts) is None


@pytest.mark.slow
def test_a_resumed_run_joins_the_same_rows(teacher: Teacher, tiny_recipe: Recipe, tmp_path: Path) -> None:
    recipe = replace(tiny_recipe, augment=AugmentRecipe(joined_share=0.5))
    rows = divide_rows(teacher, recipe.training, Sources(labelled_texts(70), labelled_texts(20)))
    whole = weights(tmp_path / "whole", recipe, rows, teacher)
    with pytest.raises(KeyboardInterrupt):
        weights(tmp_path / "stopped", recipe, rows, teacher, stops_at=11)
    resumed = weights(tmp_path / "stopped", recipe, rows, teacher)
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


def test_rows_without_labels_are_learnt_from_beside_those_with_labels(teacher: Teacher, tiny_recipe: Recipe) -> None:
    sources = Sources(labelled_texts(60), labelled_texts(30), unlabelled=without_labels(40), calibration_rows=5)
    rows = divide_rows(teacher, tiny_recipe.training, sources)
    assert (len(rows.train), len(rows.dev), len(rows.held_out.data)) == (55 + 40, 30, 5)
    assert set(rows.train.labels) == {NO_LABEL}
    assert rows.dev_labels == "data"


def test_without_any_labels_the_teacher_labels_rows_that_are_held_out(teacher: Teacher, tiny_recipe: Recipe) -> None:
    rows = divide_rows(teacher, tiny_recipe.training, Sources(None, None, without_labels(200), dev_rows=12))
    assert rows.dev_labels == "teacher"
    assert 0 < len(rows.dev) <= 12
    assert not ids(rows.train) & ids(rows.dev)
    assert not rows.held_out.labelled
    assert 150 < len(rows.train) + len(rows.held_out.data) + len(rows.dev) <= 200  # none is in two of them
    assert len(rows.held_out.data) == (len(rows.train) + len(rows.held_out.data)) // 10
    predicted = predict_logits(teacher.model, rows.dev, torch.device("cpu")).argmax(dim=1)
    assert rows.dev.labels.tolist() == predicted.tolist()


def test_without_dev_labelled_rows_are_held_out_with_their_own_labels(teacher: Teacher, tiny_recipe: Recipe) -> None:
    rows = divide_rows(teacher, tiny_recipe.training, Sources(labelled_texts(200), None, without_labels(50)))
    assert rows.dev_labels == "data"
    assert not ids(rows.train.select(range(len(rows.train) - 50))) & ids(rows.dev)


def test_what_a_run_cannot_learn_from_is_refused(teacher: Teacher, tiny_recipe: Recipe) -> None:
    with pytest.raises(DataError, match="no rows to learn from"):
        _ = Sources(None, labelled_texts(5)).task
    pairs = Texts(("a",), ("b",))
    with pytest.raises(DataError, match="--train is a single task, --unlabelled a pair task"):
        _ = Sources(labelled_texts(5), None, pairs).task
    with pytest.raises(DataError, match="5 rows are too few to hold a tenth out"):
        divide_rows(teacher, tiny_recipe.training, Sources(None, None, without_labels(5)))


@pytest.mark.slow
def test_a_student_learns_the_same_from_rows_whose_labels_were_removed(
    teacher_folder: Path, tiny_recipe: Recipe, tmp_path: Path
) -> None:
    texts, dev, rows = labelled_texts(60), labelled_texts(30), without_labels(60)
    labelled = compress(teacher_folder, tiny_recipe, texts, dev, tmp_path / "one", calibration_rows=0)
    unlabelled = compress(
        teacher_folder, tiny_recipe, None, dev, tmp_path / "two", unlabelled_texts=rows, calibration_rows=0
    )
    expected, found = (result.student.model.state_dict() for result in (labelled, unlabelled))
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.slow
def test_the_manifest_says_that_the_teacher_labelled_the_rows(
    teacher_folder: Path, tiny_recipe: Recipe, tmp_path: Path
) -> None:
    lenient = replace(tiny_recipe, export=ExportRecipe(int8_accuracy_loss=1, int8_divergence=100))
    result = compress(teacher_folder, lenient, None, None, tmp_path / "run", unlabelled_texts=without_labels(200))
    manifest = export_artefact(result, models_folder(tmp_path) / "tiny", data_set="tiny", split="held-out")
    figures = manifest["evaluation"]
    assert (figures["labels"], figures["split"], figures["teacher_accuracy"]) == ("teacher", "held-out", 1.0)
    for scores in figures["files"].values():
        assert scores["accuracy"] == scores["agreement"]
        assert scores["divergence"] > 0
    assert manifest["calibration"]["rows"] == 0
    assert "nobody labelled them" in format_manifest(manifest)


def test_words_are_replaced_in_rows_that_keep_their_lengths_and_others_in_each_pass(
    teacher: Teacher, tiny_recipe: Recipe
) -> None:
    recipe = replace(tiny_recipe, augment=AugmentRecipe(replaced_share=0.4))
    rows = divide_rows(teacher, recipe.training, Sources(labelled_texts(100), labelled_texts(30)))
    rows_of_epoch = augmented_rows(teacher, recipe, rows.train_texts)
    assert rows_of_epoch is not None
    first, second = rows_of_epoch(0), rows_of_epoch(1)
    assert first != second
    assert rows_of_epoch(0) == first
    assert np.array_equal(first.bounds, rows.train.bounds)
    assert all(row[0] == teacher.tokenizer.cls_token_id for row in first.rows)
    changed = (first.token_ids != rows.train.token_ids).sum() / (rows.train.lengths - 2).sum()
    assert 0.3 < changed < 0.5


@pytest.mark.slow
def test_one_command_compresses_with_text_files_alone(
    folder: Path, teacher_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, rows in (("one.txt", 90), ("two.txt", 60)):
        (folder / name).write_text("\n\n".join(labelled_texts(rows).texts) + "\n", encoding="utf-8")
    options = ["--teacher", str(teacher_folder), "--recipe", "tiny.toml", "--out", "models/tiny"]
    main(["compress", *options, "--unlabelled", "one.txt", "two.txt", "--joined-share", "0.5"])
    manifest = json.loads((folder / "models/tiny/manifest.json").read_text(encoding="utf-8"))
    assert manifest["evaluation"]["labels"] == "teacher"
    assert manifest["compression"]["recipe"]["augment"] == {"joined_share": 0.5, "replaced_share": 0.0}
    assert "agreement with the teacher" in capsys.readouterr().out
