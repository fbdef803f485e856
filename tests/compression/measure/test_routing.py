"""Claims about who answers a row in a cascade, and how the answers are counted."""

from __future__ import annotations

import numpy as np
import pytest

from ladabert_compress.measure.routing import NEVER, StageAnswers, route

LABELS = np.array([[0, 1, 0, 1], [0, 0, 1, 1], [0, 1, 1, 1]])
SURENESS = np.array([[0.9, 0.6, 0.6, np.nan], [0.8, 0.8, 0.5, 0.9], [0.9, 0.9, 0.9, 0.9]])
ANSWERS = StageAnswers(LABELS, SURENESS, (1.0, 4.0, 10.0), 2, np.array([0, 1, 1, 0]))


def test_the_first_stage_that_reaches_its_labels_threshold_answers() -> None:
    found = route(ANSWERS, [[0.9, 0.6], [0.8, 0.6]])
    assert found.stages.tolist() == [0, 0, 2, 1]  # a sureness that is no number is not sure
    assert found.labels.tolist() == [0, 1, 1, 1]
    assert (found.escalated, found.disagreements, found.wrong) == (2, 0, 1)
    assert found.mean_ms == pytest.approx((1 + 1 + 15 + 5) / 4)


def test_labels_have_thresholds_of_their_own() -> None:
    assert route(ANSWERS, [[0.5, NEVER], [0.5, 0.5]]).stages.tolist() == [0, 1, 0, 1]


def test_the_safest_thresholds_give_the_last_stages_answers_and_the_cheapest_the_firsts() -> None:
    assert route(ANSWERS, ANSWERS.everything_goes_on()).labels.tolist() == LABELS[-1].tolist()
    sure = ANSWERS.select(slice(0, 3))
    assert route(sure, sure.nothing_goes_on()).labels.tolist() == LABELS[0, :3].tolist()


def test_the_figures_are_shares_of_the_rows() -> None:
    figures = route(ANSWERS, [[0.9, 0.6], [0.8, 0.6]]).figures()
    assert figures["stages"] == [0.5, 0.25, 0.25]
    assert figures["agreement"]["value"] == 1
    assert figures["accuracy"]["value"] == figures["last_accuracy"] == 0.75
    assert "accuracy" not in route(StageAnswers(LABELS, SURENESS, (1, 4, 10), 2), [[1, 1], [1, 1]]).figures()


def test_halves_are_disjoint_and_together_all_rows() -> None:
    one, other = ANSWERS.select([0, 1, 2]).halves(seed=1)
    assert (len(one), len(other)) == (1, 2)
    assert sorted([*one, *other]) == [0, 1, 2]
