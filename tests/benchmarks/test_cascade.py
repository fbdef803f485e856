"""Claims about the figures of a cascade."""

from typing import Any

import numpy as np
import pytest

from benchmarks.cascade import CASCADE, HALVES, add_answers, add_halves, failures, sections, stage_answers
from benchmarks.harness.results import Results

FAST, SLOW, STUDENT = "fast", "slow", "student"
ROWS = 400


def said(labels: list[str], stage: str | None = None, score: float = 0.9) -> list[dict[str, Any]]:
    """What the service says of texts of two labels."""
    about = {} if stage is None else {"stage": stage}
    scores = [{"label": name, "score": 0.5} for name in ("no", "yes")]
    return [{"label": label, "score": score, "scores": scores, **about} for label in labels]


def measured(*, wrong: int = 0, rates: tuple[float, float, float] = (400, 100, 300), unsure: int = 20) -> Results:
    """Results of a cascade with so many labels that are not the last stage's."""
    about = {"machine": "m", "command": "c", "commit": "c", "date": "d"}
    settings = {"stages": [FAST, SLOW], "student": STUDENT, "agreement": 0.9, "data": "rows.tsv", "rows_chosen_on": 9}
    results = Results("cascade", about, {**settings, "confidence": 0.95, "callers": 32, "seconds": 1.0})
    truth = ["yes"] * ROWS
    answers = {
        CASCADE: said(["no"] * wrong + ["yes"] * (90 - wrong), FAST) + said(["yes"] * 10, SLOW),
        FAST: said(["no"] * 10 + ["yes"] * 90),
        SLOW: said(truth[:100]),
        STUDENT: said(["no"] * 5 + ["yes"] * 95),
    }
    add_answers(results, "others", answers)
    for number, factor in enumerate((1.0, 2.0)):
        for name, rate in zip((CASCADE, SLOW, STUDENT), rates, strict=True):
            figures = {"texts_per_s": factor * rate, "p50_ms": 1.0, "p99_ms": 2.0, "errors": 0}
            results.add("points", model=name, texts=16, round=number, **figures)
    fast = said(["no"] * unsure, score=0.6) + said(["yes"] * (ROWS - unsure))
    add_halves(results, stage_answers([fast, said(truth)], (1.0, 5.0)))
    return results


def test_agreement_is_with_the_last_stage_and_what_goes_on_was_not_answered_by_the_first() -> None:
    text = sections(measured(wrong=2))["cascade"]
    assert "| others (100) | cascade | **98.00%** (93.00% to 99.45%) | 10.0% |" in text
    assert "| others (100) | fast | **90.00%**" in text
    assert "| others (100) | slow |" not in text


def test_a_ratio_is_taken_within_its_round() -> None:
    results = measured()
    for row, rate in zip(results.rows("points", model=SLOW), (100, 400), strict=True):
        row["texts_per_s"] = rate
    assert "| 16 | slow | 250 | 1.0 | 2.0 | **3.00** (2.00 to 4.00) | 0 |" in sections(results)["cascade"]


def test_kept_promises_are_not_named() -> None:
    assert failures(measured()) == []


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"wrong": 11}, ["others: agreement 89.00%, not 90.00%", "others: agreement 89.00% where student has 95.00%"]),
        (
            {"rates": (290, 100, 300)},
            [
                "2.90 times the throughput of slow at 16 texts a request, not 3",
                "0.97 times the throughput of student at 16 texts a request, not 1",
            ],
        ),
    ],
)
def test_a_promise_that_is_not_kept_is_named(changed: dict[str, Any], named: list[str]) -> None:
    assert failures(measured(**changed)) == named


def test_halves_that_miss_the_target_are_counted() -> None:
    results = measured()
    for row in results.rows("halves")[:3]:
        row["met"] = False
    assert failures(results) == ["target met on 85% of halves, not 90%"]
    assert (
        f"Of {HALVES} random halves of rows.tsv, thresholds met the target on the other half in **17**"
        in sections(results)["cascade"]
    )


def test_a_half_is_judged_on_the_rows_that_it_left_out() -> None:
    results = measured(unsure=80)
    assert len(results.rows("halves")) == HALVES
    assert all(row["met"] for row in results.rows("halves"))
    # A fifth of the labels differ, all of them unsure: more than the target allows, so texts go on.
    assert all(0.05 < row["goes_on"] < 0.35 for row in results.rows("halves"))


def test_labels_in_another_order_are_the_same_labels() -> None:
    one, other = said(["yes", "no"]), said(["yes", "no"])
    for prediction in other:
        prediction["scores"].reverse()
    found = stage_answers([one, other], (1.0, 5.0))
    assert np.array_equal(found.labels[0], found.labels[1])
    assert found.label_count == 2
