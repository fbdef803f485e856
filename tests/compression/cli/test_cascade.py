"""Claims about `ladabert-compress cascade`: real graphs, made-up sentences, and what is refused."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from ladabert_compress.artefact.cascade import write_cascade
from ladabert_compress.artefact.cascade_card import cascade_card
from ladabert_compress.artefact.manifest import CASCADE_SCHEMA_FILE, read_schema
from ladabert_compress.cli.main import main
from ladabert_compress.errors import ExportError
from ladabert_compress.search.cascade import sureness_of
from tests.compression.conftest import REPOSITORY
from tests.service.tiny_artefact import WORDS, change_manifest, seal, write_artefact

LABELS = ("NEGATIVE", "POSITIVE")


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with models/fast and models/slow, whose labels stand in another order, and rows."""
    monkeypatch.chdir(tmp_path)
    write_artefact(tmp_path / "models", "fast", labels=LABELS[::-1], temperature=2.0)
    write_artefact(tmp_path / "models", "slow", seed=0)
    write_artefact(tmp_path / "models", "third", seed=3)
    generator = np.random.default_rng(0)
    texts = [" ".join(generator.choice(WORDS, generator.integers(1, 9))) for _ in range(300)]
    lines = [f"{text}\t{LABELS['good' in text]}" for text in texts]
    (tmp_path / "rows.tsv").write_text("\n".join(("text\tlabel", *lines)) + "\n", encoding="utf-8")
    (tmp_path / "rows.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")
    return tmp_path / "models"


def make(
    *more: str,
    stages: Sequence[str] = ("models/fast", "models/slow"),
    target: str = "escalated=0.5",
    data: str = "rows.tsv",
    out: str = "models/both",
) -> dict[str, Any]:
    main(["cascade", "--stages", *stages, "--data", data, "--target", target, "--out", out, *more])
    manifest: dict[str, Any] = json.loads(Path(out, "manifest.json").read_text(encoding="utf-8"))
    jsonschema.validate(manifest, read_schema(CASCADE_SCHEMA_FILE))
    return manifest


def refusal(capsys: pytest.CaptureFixture[str], *more: str, **how: Any) -> str:
    with pytest.raises(SystemExit) as caught:
        make(*more, **how)
    assert caught.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert len(lines) == 1
    return lines[0]


@pytest.mark.slow
def test_bundled_students_become_a_cascade(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["sst2-latency-x4.7", "sst2-x2.5"]
    for name in names:
        shutil.copytree(REPOSITORY / "models" / name, tmp_path / "models" / name)
    texts = [f"{start} {end}." for start in ("a warm", "a dull", "not a bad", "the best") for end in ("film", "plot")]
    (tmp_path / "rows.txt").write_text("\n".join(texts * 6) + "\n", encoding="utf-8")
    manifest = make(
        stages=[str(tmp_path / "models" / name) for name in names],
        data=str(tmp_path / "rows.txt"),
        target="agreement=0.8",
        out=str(tmp_path / "models" / "both"),
    )
    assert manifest["labels"] == ["negative", "positive"]
    assert [stage["name"] for stage in manifest["cascade"]["stages"]] == names
    for stage in manifest["cascade"]["stages"]:
        graph = json.loads((tmp_path / "models" / stage["name"] / "manifest.json").read_text(encoding="utf-8"))
        assert (stage["version"], stage["file"]) == (graph["version"], graph["default_file"])
        assert stage["sha256"] == graph["files"][stage["file"]]["sha256"]
    figures = manifest["evaluation"]
    assert (figures["rows_chosen_on"], figures["rows"]) == (24, 24)
    assert "accuracy" not in figures
    assert figures["median_ms"][0] < figures["median_ms"][1]
    printed = capsys.readouterr().out
    assert "agreement with the last stage" in printed
    assert printed.endswith(f"next: ladabert-serve --models {tmp_path / 'models'} --default-model both\n")


def test_labels_are_matched_by_name(models: Path) -> None:
    """The two graphs are the same but for the order of labels, so they never agree."""
    manifest = make()
    assert manifest["labels"] == list(LABELS)
    nothing_goes_on = next(point for point in manifest["evaluation"]["curve"] if point["escalated"] == 0)
    assert nothing_goes_on["agreement"] < 0.1
    assert len(manifest["cascade"]["stages"][0]["thresholds"]) == 2
    assert "thresholds" not in manifest["cascade"]["stages"][1]


def test_the_figures_are_about_the_other_half(models: Path) -> None:
    manifest = make()
    figures = manifest["evaluation"]
    assert (figures["rows_chosen_on"], figures["rows"]) == (150, 150)
    assert sum(figures["stages"]) == pytest.approx(1)
    assert figures["escalated"]["value"] == pytest.approx(1 - figures["stages"][0])
    assert figures["accuracy"]["low"] < figures["accuracy"]["value"] < figures["accuracy"]["high"]
    assert all(sum(counts) == 150 for counts in figures["distributions"].values())
    assert figures["data_set"].endswith("/rows.tsv")
    shares = [point["escalated"] for point in figures["curve"]]
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0, 1)


def test_the_version_follows_from_stages_and_thresholds(models: Path) -> None:
    one, again, other = make(), make(), make(target="escalated=0.2")
    assert one["version"] == again["version"] != other["version"]
    stages = json.dumps(one["cascade"]["stages"], sort_keys=True)
    assert one["version"] == hashlib.sha256(stages.encode()).hexdigest()[:12]


@pytest.mark.parametrize("data", ["rows.txt", "hidden.tsv", "others.tsv"])
def test_labels_are_needed_for_accuracy_only(models: Path, data: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("hidden.tsv").write_text("text\nfilm\n" + "good film\n" * 99, encoding="utf-8")
    Path("others.tsv").write_text("text\tlabel\nfilm\t5\n" + "good film\t4\n" * 99, encoding="utf-8")
    assert "accuracy" not in make(data=data)["evaluation"]
    assert ("the rows are read without labels: " in capsys.readouterr().err) == data.endswith(".tsv")


@pytest.mark.parametrize("how", [{"target": "accuracy=0.5"}, {"label": "label"}])
def test_labels_that_are_needed_or_named_have_to_be_the_stages(
    models: Path, capsys: pytest.CaptureFixture[str], how: dict[str, str]
) -> None:
    Path("others.tsv").write_text("text\tlabel\nfilm\t5\n" + "good film\t4\n" * 99, encoding="utf-8")
    named = ["--label", how.pop("label")] if "label" in how else []
    line = refusal(capsys, *named, data="others.tsv", **how)
    assert "others.tsv:2: label '5' is not one of NEGATIVE, POSITIVE" in line
    assert not Path("models/both").exists()


def test_a_graph_whose_logits_are_no_numbers_is_refused(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_artefact(models, "broken", poison="warm")
    Path("rows.txt").write_text("good film\nwarm film\n", encoding="utf-8")
    line = refusal(capsys, stages=["models/broken", "models/slow"], data="rows.txt")
    assert "models/broken: its graph gives logits that are no numbers for rows.txt:2; export it again" in line


def test_what_cannot_be_promised_is_said_and_everything_goes_on(
    models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = make(target="agreement=0.999")
    assert manifest["evaluation"]["escalated"]["value"] == 1
    assert "everything goes on; name more rows or ask for less" in capsys.readouterr().out
    make(target="accuracy=0.999")
    assert "nor does the last stage alone" in capsys.readouterr().out


def test_margin_is_the_distance_to_the_second_score(models: Path) -> None:
    assert make("--measure", "margin")["cascade"]["measure"] == "margin"
    logits = np.log(np.array([[0.7, 0.2, 0.1]], dtype=np.float32))
    assert sureness_of(logits, "margin") == pytest.approx(0.5)
    assert sureness_of(logits, "score") == pytest.approx(0.7)


def test_three_stages_have_two_rows_of_thresholds(models: Path) -> None:
    manifest = make(stages=["models/fast", "models/slow", "models/third"])
    assert [len(stage.get("thresholds", [])) for stage in manifest["cascade"]["stages"]] == [2, 2, 0]


def test_the_card_has_the_curve_and_every_stage(models: Path) -> None:
    manifest = make()
    card = Path("models/both/README.md").read_text(encoding="utf-8")
    assert card == cascade_card(manifest)
    assert all(stage in card for stage in ("`fast`", "`slow`"))
    assert "| goes on | agreement | accuracy | ms |" in card
    assert "accuracy" not in cascade_card(make(data="rows.txt"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"labels": ["NEGATIVE", "neutral"]},
            "models/fast and models/slow have other labels (only one has 'POSITIVE')",
        ),
        ({"task": "pair"}, "models/fast is a pair task, models/slow a single task"),
        ({"problem_type": "multi_label"}, "models/fast is multi-label"),
        ({"name": "quick"}, "models/fast: its manifest calls it quick"),
        ({"labels": ["POSITIVE"]}, "models/fast is of one logit"),
    ],
)
def test_stages_that_do_not_fit_are_refused(
    models: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any], message: str
) -> None:
    change_manifest(models / "fast", **change)
    seal(models / "fast")
    assert message in refusal(capsys)
    assert not (models / "both").exists()


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"stages": ["models/fast"]}, "a cascade needs at least two artefacts"),
        ({"stages": ["models/fast", "models/fast"]}, "each artefact can be one stage only"),
        ({"out": "models/slow"}, "--out: models/slow is one of the stages"),
        ({"out": "models/third"}, "--out: models/third is an artefact with a graph, which would be lost"),
        ({"out": "elsewhere/both"}, "models/fast does not stand beside elsewhere/both"),
        ({"out": "rows.tsv"}, "exists and is no artefact"),
        ({"stages": ["models/none", "models/slow"]}, "models/none: no readable manifest.json"),
        ({"target": "agreement"}, "expected agreement=, accuracy= or escalated="),
        ({"target": "agreement=1"}, "expected agreement=, accuracy= or escalated="),
        ({"target": "speed=3"}, "or latency-ms= with milliseconds, such as agreement=0.99"),
        ({"target": "latency-ms=0.000001"}, "the first stage alone takes"),
        ({"data": "none.tsv"}, "none.tsv"),
    ],
)
def test_what_is_wrong_is_one_line(
    models: Path, capsys: pytest.CaptureFixture[str], how: dict[str, Any], message: str
) -> None:
    assert message in refusal(capsys, **how)


def test_a_confidence_has_bounds(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "expected a number from 0.5 to below 1" in refusal(capsys, "--confidence", "1")


def test_a_single_row_is_refused(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("one.tsv").write_text("text\tlabel\nfilm\tNEGATIVE\n", encoding="utf-8")
    assert "--data: a single row" in refusal(capsys, data="one.tsv")


def test_pairs_are_refused_where_the_stages_read_single_texts(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("pairs.tsv").write_text("text_a\ttext_b\tlabel\n" + "film\tfilm\tNEGATIVE\n" * 4, encoding="utf-8")
    assert "is a pair task, models/slow a single task" in refusal(capsys, data="pairs.tsv")


def test_a_cascade_is_no_stage_of_another(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make()
    line = refusal(capsys, stages=["models/both", "models/slow"], out="models/more")
    assert "models/both: is a cascade, which has no graph of its own" in line


def test_a_cascade_that_cannot_be_written_leaves_the_previous_one(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = make()
    before = sorted(path.name for path in models.iterdir())

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_text", full)
        with pytest.raises(ExportError, match=r"No space left on device.*run the command again"):
            write_cascade(models / "both", {**manifest, "max_length": 5})
    with pytest.raises(ExportError, match="max_length"):
        write_cascade(models / "both", {**manifest, "max_length": 0})
    assert json.loads((models / "both" / "manifest.json").read_text(encoding="utf-8")) == manifest
    assert sorted(path.name for path in models.iterdir()) == before
