import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ladabert_compress.artefact.export import export_artefact
from ladabert_compress.artefact.temperature import fit_calibration, fit_temperature
from ladabert_compress.data.overlaps import hold_out
from ladabert_compress.measure.predictions import Logits, Predictions
from ladabert_compress.measure.reliability import expected_calibration_error, reliability
from ladabert_compress.measure.scores import score
from ladabert_compress.recipe import Recipe
from ladabert_compress.report.evaluation import evaluate
from ladabert_compress.training.run import compress
from tests.compression.conftest import labelled_texts, models_folder


def overconfident(
    temperature: float, *, labels: int, multi_label: bool, rows: int = 20_000
) -> tuple[Logits, Predictions]:
    """Logits ``temperature`` times too large, and labels drawn from the scores that are right."""
    random = np.random.default_rng(0)
    logits = random.normal(scale=2, size=(rows, labels))
    if multi_label:
        truth = (random.random(logits.shape) < 1 / (1 + np.exp(-logits))).astype(np.int64)
    else:
        truth = (logits + random.gumbel(size=logits.shape)).argmax(axis=1)
    return (temperature * logits).astype(np.float32), truth


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_the_temperature_that_spoilt_the_scores_is_found_and_mends_them(temperature: float, multi_label: bool) -> None:
    logits, truth = overconfident(temperature, labels=3, multi_label=multi_label)
    fitted = fit_temperature(logits, truth)
    assert fitted == pytest.approx(temperature, rel=0.05)
    assert expected_calibration_error(logits, truth, fitted) < 0.012
    if temperature != 1.0:
        assert expected_calibration_error(logits, truth) > 0.03
    assert score(logits / fitted, truth).accuracy == score(logits, truth).accuracy


def test_the_error_is_the_mean_gap_of_the_bins() -> None:
    sure = float(np.log(9))  # 0.9 for the first of two labels
    logits = np.array([[sure, 0]] * 10 + [[0, 0]] * 10, dtype=np.float32)
    truth = np.array([0] * 6 + [1] * 4 + [0] * 5 + [1] * 5)
    assert [(entry.decisions, round(entry.accuracy, 6)) for entry in reliability(logits, truth)] == [
        (10, 0.5),
        (10, 0.6),
    ]
    assert expected_calibration_error(logits, truth) == pytest.approx((0.3 + 0.0) / 2)


def test_rows_that_are_all_right_do_not_make_the_scores_boundless() -> None:
    logits = np.array([[1.0, -1.0], [-1.0, 1.0], [1.5, 0.0]], dtype=np.float32)
    assert 0.5 < fit_temperature(logits, np.array([0, 1, 0])) < 5  # at 0.1 without the imagined decisions


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_enough_rows_support_the_temperature_that_spoilt_the_scores(temperature: float, multi_label: bool) -> None:
    logits, truth = overconfident(temperature, labels=3, multi_label=multi_label, rows=1000)
    found = fit_calibration(logits, truth, logits, truth)
    assert found.rows == 1000
    assert found.temperature == (1.0 if temperature == 1.0 else pytest.approx(temperature, rel=0.2))


def test_few_rows_hardly_ever_change_scores_that_are_right() -> None:
    logits, truth = overconfident(1.0, labels=2, multi_label=False, rows=30 * 200)
    parts = [(logits[start : start + 30], truth[start : start + 30]) for start in range(0, len(truth), 30)]
    fitted = [fit_temperature(*part) for part in parts]
    assert sum(not 0.7 < value < 1.4 for value in fitted) > 30  # what the rows alone would ask for
    kept = [fit_calibration(*part, logits, truth).temperature for part in parts]
    assert sum(value != 1.0 for value in kept) <= 4


def test_thirty_rows_that_happen_to_be_right_make_unsure_scores_no_surer() -> None:
    logits = np.array([[0.1, -0.1]] * 30, dtype=np.float32)  # 0.55 for the first label
    truth = np.array([0] * 22 + [1] * 8)
    assert fit_temperature(logits, truth) < 0.3
    assert fit_calibration(logits, truth, logits, truth).temperature == 1.0


@given(rows=st.integers(0, 400), seed=st.integers(0, 5))
def test_held_out_rows_are_drawn_by_the_seed_and_taken_out(rows: int, seed: int) -> None:
    kept, held_out = hold_out(200, rows, seed)
    assert len(held_out) == min(rows, 20)
    assert sorted(kept + held_out) == list(range(200))
    assert hold_out(200, rows, seed) == (kept, held_out)


def test_a_student_is_calibrated_on_rows_that_it_did_not_learn_from(
    teacher_folder: Path, tiny_recipe: Recipe, tmp_path: Path
) -> None:
    dev = labelled_texts(40)
    result = compress(teacher_folder, tiny_recipe, labelled_texts(80), dev, tmp_path / "run", calibration_rows=5)
    assert (len(result.train_data), len(result.held_out.data)) == (75, 5)
    manifest = export_artefact(result, models_folder(tmp_path) / "tiny", data_set="tiny", precisions=("fp32",))
    written = manifest["calibration"]
    assert written["rows"] == 5
    figures = evaluate(tmp_path / "models" / "tiny", dev)["files"]["model.onnx"]
    assert figures["uncalibrated_error"] == pytest.approx(written["ece_before"])
    assert figures["expected_calibration_error"] == pytest.approx(written["ece_after"])


def test_rows_of_its_own_for_the_temperature_leave_train_whole(
    teacher_folder: Path, tiny_recipe: Recipe, tmp_path: Path
) -> None:
    texts, own = labelled_texts(40), labelled_texts(12)
    result = compress(teacher_folder, tiny_recipe, texts, texts, tmp_path / "run", calibration_texts=own)
    assert (len(result.train_data), len(result.held_out.data)) == (40, 12)


def test_a_run_without_held_out_rows_learns_from_all_and_keeps_temperature_1(
    teacher_folder: Path, tiny_recipe: Recipe, tmp_path: Path
) -> None:
    texts = labelled_texts(40)
    result = compress(teacher_folder, tiny_recipe, texts, texts, tmp_path / "run", calibration_rows=0)
    manifest = export_artefact(result, models_folder(tmp_path) / "tiny", data_set="tiny", precisions=("fp32",))
    assert len(result.train_data) == 40
    assert not result.held_out.labelled  # int8 is tried on the teacher's labels
    assert manifest["calibration"]["temperature"] == 1.0
    assert manifest["calibration"]["ece_before"] == manifest["calibration"]["ece_after"]


def test_the_history_holds_what_a_report_draws(teacher_folder: Path, tiny_recipe: Recipe, tmp_path: Path) -> None:
    texts = labelled_texts(64)
    compress(teacher_folder, tiny_recipe, texts, texts, tmp_path / "run")
    history = json.loads((tmp_path / "run" / "history.json").read_text(encoding="utf-8"))
    steps = [entry["step"] for entry in history["losses"]]
    assert steps == list(range(1, history["evaluations"][-1]["step"] + 1))
    assert history["shrink_steps"][0] == 0
    assert history["training_s"] > 0
    assert len(history["shrink_steps"]) == tiny_recipe.schedule.iterations
    assert torch.tensor([entry["prediction"] for entry in history["losses"]]).isfinite().all()
