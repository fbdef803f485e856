"""Claims about the one format of results."""

import json
from pathlib import Path

import pytest

from benchmarks.harness.results import FOLDER, Results, commit, origin, rounded


def made_up() -> Results:
    results = Results("made-up", {"command": "c", "commit": "abc", "date": "2020-01-01"}, {"rounds": 2})
    for number, rates in enumerate([(10.0, 20.0), (14.0, 18.0), (12.0, 25.0)]):
        for name, rate in zip("ab", rates, strict=True):
            results.add("points", round=number, name=name, rate=rate)
    return results


def test_what_is_saved_is_what_is_loaded(tmp_path: Path) -> None:
    made_up().save(tmp_path / "deep" / "results.json")
    assert Results.load(tmp_path / "deep" / "results.json") == made_up()


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.json")), ids=lambda path: path.stem)
def test_the_committed_results_are_as_the_writer_writes_them(path: Path, tmp_path: Path) -> None:
    Results.load(path).save(tmp_path / path.name)
    assert (tmp_path / path.name).read_text(encoding="utf-8") == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("content", ["[]", '{"machine": "m", "table": []}'])
def test_a_file_of_another_format_is_refused_by_name(content: str, tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=r"other\.json: does not hold benchmark, origin"):
        Results.load(tmp_path / "other.json")


def test_a_row_is_a_line() -> None:
    path = FOLDER / "workers.json"
    lines = path.read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line.strip().rstrip(",")) for line in lines if line.strip().startswith('{"server"')]
    assert rows == Results.load(path).rows("points")


def test_rows_are_chosen_by_their_values_and_medians_are_of_those_alone() -> None:
    results = made_up()
    assert results.values("points", "rate", name="a") == [10, 14, 12]
    assert results.median("points", "rate", name="a") == 12
    assert results.names("points", "name") == ["a", "b"]


def test_nothing_has_no_median() -> None:
    assert made_up().median("points", "rate", name="c") is None
    assert made_up().median("other", "rate") is None


def test_figures_are_rounded_once_wherever_they_stand_in_a_row() -> None:
    row = {"a": 1.23456789, "b": [0.000123456789], "c": {"d": 1234567.8}, "e": 7, "f": "1.23456789", "g": None}
    assert rounded(row) == {
        "a": 1.23457,
        "b": [0.000123457],
        "c": {"d": 1234570.0},
        "e": 7,
        "f": "1.23456789",
        "g": None,
    }


def test_an_origin_keeps_this_machines_folders_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["benchmarks", "latency", "--teacher", "/home/somebody/teachers/sst2"])
    found = origin("numpy", "no-such-package")
    assert found["command"] == "python -m benchmarks latency --teacher sst2"
    assert found["versions"].keys() == {"numpy"}
    assert found["commit"] == commit()
    assert found["machine"]
