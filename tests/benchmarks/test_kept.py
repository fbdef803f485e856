"""Claims about tables of figures that programs outside `benchmarks` measured."""

from pathlib import Path

import pytest

from benchmarks import attacks, frontier
from benchmarks.harness.results import FOLDER, Results
from tests.attacks.__main__ import results as results_of
from tests.attacks.harness.attack import Claim
from tests.attacks.harness.judge import Verdict


@pytest.fixture
def scout() -> Results:
    return Results.load(FOLDER / "frontier-scout.json")


def test_what_an_attack_cost_is_in_the_table_that_its_json_fills(tmp_path: Path) -> None:
    claims = [Claim("a", True), Claim("b", True)]
    verdict = Verdict("smuggling", claims, {"400": 3, "200": 1}, 12.4, {"live": 7.6})
    results_of([verdict]).save(tmp_path / "attacks.json")
    text = attacks.sections(Results.load(tmp_path / "attacks.json"))["attacks"]
    assert "1 of 1 attacks held" in text
    assert "| `smuggling` | 1 × 200, 3 × 400 | +12 | live 8 ms | 2 hold |" in text


def test_a_claim_that_does_not_hold_is_in_the_table_with_what_was_measured() -> None:
    verdict = Verdict("smuggling", [Claim("nothing is lost", False, "2 lost"), Claim("b", True)], {}, 0.0, {})
    text = attacks.sections(results_of([verdict]))["attacks"]
    assert "0 of 1 attacks held" in text
    assert "| `smuggling` | – | +0 | – | **not held:** nothing is lost: 2 lost |" in text


def test_a_gain_is_over_plain_training_at_the_same_rate(scout: Results) -> None:
    for row in scout.tables["teachers"]:
        row["dev_accuracy"] = {"plain": 0.9, "label smoothing 0.1": 0.905, "R-Drop 4": 0.92}.get(row["variant"], 0.1)
        if row["rate"] != 5e-5:
            row["dev_accuracy"] = 0.2
    lines = frontier.sections(scout)["frontier-gains"].splitlines()[2:]
    assert [line.split(" | ")[2:] for line in lines] == [["90.0", "– |"], ["90.5", "+0.50 |"], ["92.0", "+2.00 |"]]


def test_a_run_that_was_stopped_is_no_finished_one(scout: Results) -> None:
    kept = [row for row in scout.tables["students"] if row["step"] == row["steps"]]
    assert len(frontier.sections(scout)["frontier-students"].splitlines()) == 2 + len(kept)
    stopped = [line for line in frontier.sections(scout)["frontier-teachers"].splitlines() if "halfway" in line]
    assert len(stopped) == len({(row["variant"], row["rate"]) for row in _unfinished(scout)})


def _unfinished(scout: Results) -> list[dict[str, object]]:
    return [row for row in scout.tables["teachers"] if row["step"] < row["steps"]]
