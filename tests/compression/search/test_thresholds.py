"""Claims about the thresholds of a cascade, on made-up scores whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from ladabert_compress.errors import OptionError
from ladabert_compress.measure.routing import StageAnswers, route
from ladabert_compress.search.thresholds import Target, choose_thresholds, meets, met_on_other_halves

TARGETS = [
    Target("agreement", 0.97),
    Target("agreement", 0.9),
    Target("accuracy", 0.9),
    Target("escalated", 0.2),
    Target("latency-ms", 2.5),
]


def made_up(rows: int, *, labels: int = 2, stages: int = 2, seed: int = 0) -> StageAnswers:
    """Calibrated stages, each surer and five times as dear as the one before."""
    generator = np.random.default_rng(seed)
    truth = generator.integers(labels, size=rows)
    found, sureness = [], []
    for stage in range(stages):
        score = 1 / labels + (1 - 1 / labels) * generator.beta(4 * (1 + stage), 1, size=rows)
        other = (truth + generator.integers(1, labels, size=rows)) % labels
        found.append(np.where(generator.random(rows) < score, truth, other))
        sureness.append(score)
    costs = tuple(5.0**stage for stage in range(stages))
    return StageAnswers(np.array(found), np.array(sureness), costs, labels, truth)


def share_met(target: Target, confidence: float = 0.95, sets: int = 10, halves: int = 4, **shape: int) -> float:
    """Over several sets of rows, so that one unlucky set does not decide."""
    found = [
        met
        for seed in range(sets)
        for met in met_on_other_halves(
            made_up(800, seed=seed, **shape), target, halves=halves, confidence=confidence, seed=seed
        )
    ]
    return float(np.mean(found))


@pytest.mark.parametrize("target", TARGETS, ids=str)
@pytest.mark.parametrize("shape", [{}, {"labels": 4}, {"stages": 3}], ids=["two labels", "four", "three stages"])
@pytest.mark.slow
def test_a_target_of_one_half_is_met_on_the_other_in_nine_cases_of_ten(target: Target, shape: dict[str, int]) -> None:
    assert share_met(target, **shape) >= 0.9


def test_with_little_confidence_the_other_half_misses_the_target_more_often() -> None:
    assert share_met(Target("agreement", 0.9), confidence=0.5, sets=20, halves=2) < 0.8


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_what_is_promised_holds_on_the_rows_of_the_choice(target: Target) -> None:
    for seed in range(5):
        answers = made_up(600, labels=3, seed=seed)
        choice = choose_thresholds(answers, target)
        assert choice.promised
        assert meets(route(answers, choice.thresholds), target)


def test_the_cheaper_of_two_targets_lets_less_go_on() -> None:
    answers = made_up(2000)
    shares = [
        route(answers, choose_thresholds(answers, Target("agreement", share)).thresholds).escalated
        for share in (0.99, 0.95, 0.9, 0.85)
    ]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > 2 * shares[2] > 0


def test_more_to_spend_brings_more_agreement() -> None:
    answers = made_up(2000)
    found = [
        route(answers, choose_thresholds(answers, Target("escalated", share)).thresholds).disagreements
        for share in (0.1, 0.3, 0.6)
    ]
    assert found == sorted(found, reverse=True)
    assert found[0] > found[-1]


def test_too_few_rows_let_everything_go_on() -> None:
    answers = made_up(200)
    choice = choose_thresholds(answers, Target("agreement", 0.99))
    assert choice.promised  # the last stage agrees with itself
    assert route(answers, choice.thresholds).escalated == len(answers)


def test_an_accuracy_beyond_the_last_stage_is_not_promised() -> None:
    answers = made_up(800)
    choice = choose_thresholds(answers, Target("accuracy", 0.999))
    assert not choice.promised
    assert route(answers, choice.thresholds).escalated == len(answers)


def test_a_first_stage_that_always_agrees_answers_everything() -> None:
    answers = made_up(1000)
    twin = StageAnswers(answers.labels[[1, 1]], answers.sureness, answers.costs_ms, 2, answers.truth)
    assert route(twin, choose_thresholds(twin, Target("agreement", 0.99)).thresholds).escalated == 0


def test_a_label_that_the_first_stage_confuses_has_a_higher_threshold() -> None:
    generator, rows = np.random.default_rng(0), 4000
    last = generator.integers(2, size=rows)
    sureness = generator.uniform(0.5, 1, size=rows)
    first = np.where((generator.random(rows) < 0.4) & (sureness < 0.9), 1, last)  # says 1 too often where it is unsure
    answers = StageAnswers(np.array([first, last]), np.array([sureness, sureness]), (1.0, 5.0), 2)
    never, often = choose_thresholds(answers, Target("agreement", 0.98)).thresholds[0]
    assert never < 0.6
    assert often > 0.8


def test_a_cost_below_the_first_stages_is_refused() -> None:
    with pytest.raises(OptionError, match=r"the first stage alone takes 1\.000 ms here"):
        choose_thresholds(made_up(50), Target("latency-ms", 0.5))


def test_accuracy_without_labels_is_refused() -> None:
    answers = made_up(50)
    unlabelled = StageAnswers(answers.labels, answers.sureness, answers.costs_ms, 2)
    with pytest.raises(OptionError, match="the rows have no labels"):
        choose_thresholds(unlabelled, Target("accuracy", 0.5))
