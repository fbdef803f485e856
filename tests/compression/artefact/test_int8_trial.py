"""Whether int8 is written: by what it loses on held-out rows, as far as so many rows can tell."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ladabert_compress.artefact.int8_trial import Int8Trial, Paired, try_int8
from ladabert_compress.recipe import ExportRecipe

NOTHING = Paired(0.0, 0.0)


def trial_of(rows: int, lost: int, metric: str, *, labelled: bool = True) -> Int8Trial:
    """Of two labels; fp32 and int8 share their errors on a tenth of the rows, and int8 has ``lost`` more."""
    truth = np.arange(rows) % 2
    right = np.eye(2, dtype=np.float32)[truth]
    fp32, int8 = right.copy(), right.copy()
    fp32[: rows // 10] = int8[: rows // 10] = right[: rows // 10, ::-1]
    int8[rows - lost :] = right[rows - lost :, ::-1]
    return try_int8(metric, fp32, int8, right, truth if labelled else np.full(rows, -100), labelled=labelled)


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("metric", ["accuracy", "macro_f1", "matthews"])
@pytest.mark.parametrize(
    ("rows", "lost", "is_refused"),
    [(200, 1, False), (200, 3, False), (200, 12, True), (2000, 8, False), (2000, 22, True), (20000, 100, True)],
)
def test_int8_is_refused_for_what_it_surely_loses_and_not_for_a_few_rows(
    rows: int, lost: int, is_refused: bool, metric: Any, labelled: bool
) -> None:
    trial = trial_of(rows, lost, metric, labelled=labelled)
    assert (trial.rows, trial.labels) == (rows, "data" if labelled else "teacher")
    allowed = 0.003 if metric != "matthews" else 0.006
    guards = ExportRecipe(int8_metric=metric, int8_accuracy_loss=allowed, int8_divergence=1)
    assert (trial.refusal(guards) is not None) == is_refused


@given(rows=st.integers(100, 400), lost=st.integers(0, 20))
def test_the_standard_error_is_that_of_paired_answers(rows: int, lost: int) -> None:
    loss = trial_of(rows, lost, "accuracy").loss
    share = lost / rows
    assert loss.lost == pytest.approx(share)
    assert loss.standard_error == pytest.approx(np.sqrt(share * (1 - share) / rows), rel=0.25, abs=1e-9)


def test_int8_that_is_refused_says_by_how_much_of_which_metric() -> None:
    trial = Int8Trial(900, "data", "macro_f1", Paired(0.1, 0.02), NOTHING)
    refusal = trial.refusal(ExportRecipe(int8_metric="macro_f1", int8_accuracy_loss=0.01))
    assert refusal is not None
    assert "on 900 held-out rows it loses 0.1000 ± 0.0200 of macro_f1 on their labels" in refusal


@pytest.mark.parametrize(
    ("labels", "divergence", "is_refused"),
    [
        ("teacher", Paired(0.005, 0.0), False),
        ("teacher", Paired(0.015, 0.001), True),
        ("teacher", Paired(0.015, 0.01), False),
        ("data", Paired(0.015, 0.001), False),
    ],
)
def test_scores_count_where_nobody_labelled_the_rows(labels: str, divergence: Paired, is_refused: bool) -> None:
    trial = Int8Trial(100, labels, "accuracy", NOTHING, divergence)
    assert (trial.refusal(ExportRecipe(int8_divergence=0.01)) is not None) == is_refused
