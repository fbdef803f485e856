"""Claims about scoring files: the server's answers beside every row, in order, at a bounded memory, and resumable."""

import csv
import errno
import json
import os
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from ladabert_serve.cli import main
from ladabert_serve.errors import StartError
from ladabert_serve.scoring import scorer as scoring
from ladabert_serve.scoring.parts import Parts
from ladabert_serve.scoring.score import Job, score
from ladabert_serve.settings import Settings
from tests.service.conftest import serving

TEXTS = ["a good film", "bad", "the film is not very good", "warm " * 30, 'quotes "and", commas\nand lines', "é"]
ROWS = [{"id": str(number), "text": text} for number, text in enumerate(TEXTS * 7)]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=5)
    return path


def read(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".csv":
        with path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    rows: list[dict[str, Any]] = pyarrow.parquet.read_table(path).to_pylist()
    return rows


def run(models: Path, *arguments: str) -> int:
    return main(["--models", str(models), "score", *arguments])


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
@pytest.mark.parametrize("out_ending", [".csv", ".jsonl", ".parquet"])
def test_every_row_gets_the_servers_answer_in_its_place(
    models: Path, tmp_path: Path, ending: str, out_ending: str
) -> None:
    source, out = write(tmp_path / f"in{ending}", ROWS), tmp_path / f"out{out_ending}"
    assert run(models, "--input", str(source), "--output", str(out), "--model", "alpha") == 0
    found = read(out)
    assert [{key: row[key] for key in ("id", "text")} for row in found] == ROWS
    with serving(models) as server:
        answers = server.classify({"model": "alpha", "inputs": [row["text"] for row in ROWS]}).json()["predictions"]
    for row, answer in zip(found, answers, strict=True):
        assert row["label"] == answer["label"]
        assert float(row["score"]) == pytest.approx(answer["score"], abs=1e-6)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([source.name, out.name])


def test_two_models_answer_side_by_side_and_globs_name_several_files(models: Path, tmp_path: Path) -> None:
    for number in range(3):
        write(tmp_path / f"in-{number}.csv", ROWS[number : number + 2])
    out = tmp_path / "out.jsonl"
    glob = str(tmp_path / "in-*.csv")
    assert run(models, "--input", glob, "--output", str(out), "--model", "alpha", "--model", "topics") == 0
    found = read(out)
    assert [row["id"] for row in found] == ["0", "1", "1", "2", "2", "3"]
    assert all({"alpha.label", "alpha.score", "topics.label", "topics.score"} <= set(row) for row in found)


def test_pairs_are_read_from_two_columns(models: Path, tmp_path: Path) -> None:
    source = write(tmp_path / "in.csv", [{"left": "a good film", "right": "a bad film"}])
    columns = ["--text-column", "left", "--text-pair-column", "right"]
    out = tmp_path / "out.csv"
    assert run(models, "--input", str(source), "--output", str(out), "--model", "pairs", *columns) == 0
    assert read(out)[0]["label"] in ("no", "maybe", "yes")


def test_a_row_without_a_text_keeps_its_place_and_gets_no_label(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write(tmp_path / "in.jsonl", [{"text": "good"}, {"text": None}, {"text": ""}, {"text": 12}])
    out = tmp_path / "out.jsonl"
    assert run(models, "--input", str(source), "--output", str(out), "--model", "alpha") == 0
    assert [row["label"] is None for row in read(out)] == [False, True, True, False]
    assert "2 rows have no text" in capsys.readouterr().out


def job(source: Path, out: Path, **fields: Any) -> Job:
    return Job([str(source)], out, ["alpha"], rows_per_part=5, **fields)


def test_an_interrupted_run_goes_on_after_its_last_part(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(models=models)
    source = write(tmp_path / "in.csv", ROWS)
    score(job(source, tmp_path / "whole.csv"), settings)
    answers, calls = scoring._answers, 0

    def interrupt(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyboardInterrupt
        return answers(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(scoring, "_answers", interrupt)
        with pytest.raises(KeyboardInterrupt):
            score(job(source, tmp_path / "out.csv"), settings)
    assert not (tmp_path / "out.csv").exists()
    result = score(job(source, tmp_path / "out.csv"), settings)
    assert result == (len(ROWS), 0, 15)
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_parts_of_another_job_are_not_mixed_in(models: Path, tmp_path: Path) -> None:
    source = write(tmp_path / "in.csv", ROWS)
    out = tmp_path / "out.csv"
    (tmp_path / "out.csv.parts").mkdir()
    (tmp_path / "out.csv.parts" / "job.json").write_text("{}")
    with pytest.raises(StartError, match="another job"):
        score(job(source, out), Settings(models=models))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("in.csv", "text\na\nb,c\n", "in.csv:3: has 2 fields"),
        ("in.csv", "body\na\n", "has no column 'text', only body"),
        ("in.csv", "text\n", "there are no rows"),
        ("in.jsonl", '{"text": "a"}\n{"text"\n', "in.jsonl:2: not JSON"),
        ("in.jsonl", "[1]\n", "in.jsonl:1: not a JSON object"),
        ("in.csv", "text,text\na,b\n", "in.csv:1: names a column twice"),
        ("in.csv", "text,label\na,good\n", "in.csv:2: has a column 'label' already"),
        ("in.jsonl", '{"text": "a", "id": 1}\n{"text": "b"}\n', "in.jsonl:2: has the columns text, the first row has"),
        ("in.jsonl", '{"text": "\\ud800"}\n', "in.jsonl:1: not JSON"),
        ("in.xlsx", "text\n", "unknown ending '.xlsx'"),
        ("in.parquet", "text\n", "cannot be read"),
    ],
)
def test_what_cannot_be_read_is_one_line(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: str, words: str
) -> None:
    (tmp_path / name).write_text(content)
    arguments = ["--input", str(tmp_path / name), "--output", str(tmp_path / "out.csv"), "--model", "alpha"]
    assert run(models, *arguments) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert words in error
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model", "nobody"], "no model 'nobody'"),
        ([], "choose with --model"),
        (["--model", "alpha", "--model", "pairs"], "single texts and pairs"),
    ],
)
def test_which_models_is_told_or_refused(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    source = write(tmp_path / "in.csv", ROWS)
    assert run(models, "--input", str(source), "--output", str(tmp_path / "out.csv"), *arguments) == 1
    assert words in capsys.readouterr().err


def test_an_output_that_exists_is_never_overwritten(models: Path, tmp_path: Path) -> None:
    source = write(tmp_path / "in.csv", ROWS)
    (tmp_path / "out.csv").write_text("mine")
    assert run(models, "--input", str(source), "--output", str(tmp_path / "out.csv"), "--model", "alpha") == 1
    assert (tmp_path / "out.csv").read_text() == "mine"


def test_no_column_is_overwritten_and_a_prefix_makes_room(models: Path, tmp_path: Path) -> None:
    source = write(tmp_path / "in.csv", [{"text": "a good film", "label": "mine"}])
    out = tmp_path / "out.csv"
    assert run(models, "--input", str(source), "--output", str(out), "--model", "alpha", "--prefix", "model_") == 0
    (row,) = read(out)
    assert row["label"] == "mine"
    assert row["model_label"] in ("NEGATIVE", "POSITIVE")


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
def test_columns_in_another_order_keep_their_values(models: Path, tmp_path: Path, ending: str) -> None:
    rows = [{"text": str(number), "id": f"row {number}"} for number in range(12)]
    mixed = [row if index < 6 else dict(reversed(row.items())) for index, row in enumerate(rows)]
    source, out = write(tmp_path / "in.jsonl", mixed), tmp_path / f"out{ending}"
    score(job(source, out), Settings(models=models))
    assert [(row["text"], row["id"]) for row in read(out)] == [(row["text"], row["id"]) for row in rows]


def test_parts_whose_values_are_of_other_types_make_one_parquet_file(models: Path, tmp_path: Path) -> None:
    values = [None] * 5 + [1] * 5 + [0.5] * 2
    source = write(tmp_path / "in.jsonl", [{"text": "a", "value": value} for value in values])
    out = tmp_path / "out.parquet"
    score(job(source, out), Settings(models=models))
    assert [row["value"] for row in read(out)] == values


def test_types_that_do_not_fit_together_are_one_line_and_lose_no_part(models: Path, tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [{"text": "a", "value": value} for value in [1] * 5 + ["one"]])
    out = tmp_path / "out.parquet"
    with pytest.raises(StartError, match="cannot be written"):
        score(job(source, out), Settings(models=models))
    assert sorted(path.name for path in (tmp_path / "out.parquet.parts").glob("part-*")) == [
        "part-000000.parquet",
        "part-000001.parquet",
    ]


def test_a_full_disk_is_one_line_and_the_run_goes_on_later(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = write(tmp_path / "in.csv", ROWS), tmp_path / "out.csv"
    rename = Path.rename

    def full(path: Path, target: Path) -> Path:
        if target.name == "part-000002.csv":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", full)
        with pytest.raises(StartError, match="No space left"):
            score(job(source, out), Settings(models=models))
    assert score(job(source, out), Settings(models=models)) == (len(ROWS), 0, 10)


def test_two_runs_do_not_write_the_same_output(models: Path, tmp_path: Path) -> None:
    source, out = write(tmp_path / "in.csv", ROWS), tmp_path / "out.csv"
    parts = Parts(out)
    with parts.open({}), pytest.raises(StartError, match="another run"):
        score(job(source, out), Settings(models=models))


def test_ctrl_c_is_one_line(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(scoring, "_answers", interrupt)
    source = write(tmp_path / "in.csv", ROWS)
    assert run(models, "--input", str(source), "--output", str(tmp_path / "out.csv"), "--model", "alpha") == 130
    assert capsys.readouterr().err.splitlines()[-1].endswith("goes on after the last finished part")
