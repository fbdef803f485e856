import json
from dataclasses import replace
from pathlib import Path

import pytest

from ladabert_compress.cli.main import main
from ladabert_compress.recipe import Recipe
from tests.compression.conftest import TINY_RECIPE

DATA = ["--train", "train.tsv", "--dev", "dev.tsv"]
COMPRESS = ["compress", "--teacher", "t", "--recipe", "tiny.toml", "--out", "models/x", *DATA]


def test_a_teacher_becomes_an_artefact_that_can_be_evaluated(
    folder: Path, teacher_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["finetune", "--base", str(teacher_folder), "--out", "mine", "--epochs", "2", "--max-length", "32", *DATA])
    printed = capsys.readouterr().out
    assert "dev accuracy" in printed
    assert printed.endswith(
        "next: ladabert-compress compress --teacher mine --train train.tsv --dev dev.tsv --out models/mine\n"
    )
    assert (folder / "mine" / "model.safetensors").is_file()

    options = ["--recipe", "tiny.toml", "--epochs", "1", "--int8-accuracy-loss", "1", *DATA]
    main(["compress", "--teacher", "mine", "--out", "models/tiny", *options])
    printed = capsys.readouterr().out
    assert "non-zero parameters" in printed
    assert "bytes" in printed
    main(["compress", "--teacher", "mine", "--out", "models/tiny", "--resume", *options])

    main(
        [
            "evaluate",
            "models/tiny",
            "--data",
            "dev.tsv",
            "--teacher",
            "mine",
            "--json",
            "figures.json",
            "--batch-invariance",
        ]
    )
    figures = json.loads((folder / "figures.json").read_text(encoding="utf-8"))
    manifest = json.loads((folder / "models/tiny/manifest.json").read_text(encoding="utf-8"))
    assert manifest["teacher"]["name"] == "mine"
    for found in figures["batch_invariance"].values():
        assert found["largest_score_change"] < 1e-3
        assert found["changed_labels"] == 0
    for name, entry in manifest["evaluation"]["files"].items():
        assert figures["files"][name]["accuracy"] == entry["accuracy"]
        assert figures["files"][name]["agreement"] == entry["agreement"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["finetune"], "the following arguments are required"),
        (["finetune", "--base", "b", "--out", "x", "--epochs", "0", *DATA], "--epochs: '0': expected a whole number"),
        (
            ["finetune", "--base", "b", "--out", "x", "--batch-size", "0", *DATA],
            "--batch-size: Input should be greater",
        ),
        (["finetune", "--base", "b", "--out", "models", *DATA], "--out: models exists already"),
        (["compress", "--epochs", "-1"], "--epochs: '-1': expected a number over 0"),
        (
            [
                "compress",
                "--teacher",
                "t",
                "--recipe",
                "tiny.toml",
                "--out",
                "models/x",
                "--target-latency-ms",
                "0",
                *DATA,
            ],
            "--target-latency-ms: '0': expected a number over 0",
        ),
        (
            [*COMPRESS, "--target", "cuda", "--target-latency-ms", "3"],
            "--target-latency-ms: is measured on this machine's CPU; leave --target cuda out",
        ),
        (["compress", "--what"], "the following arguments are required"),
        (["finetune", "--base", "nowhere/at/all", "--out", "x", *DATA], "nowhere/at/all: cannot be loaded"),
        (
            ["compress", "--teacher", "none", "--recipe", "tiny.toml", "--out", "models/x", *DATA],
            "none: no config.json",
        ),
        (["compress", "--teacher", "t", "--recipe", "no.toml", "--out", "models/x", *DATA], "no.toml: No such file"),
        (
            ["compress", "--teacher", "t", "--recipe", "tiny.toml", "--out", "tiny.toml", *DATA],
            "exists and is no artefact",
        ),
        (["compress", "--teacher", "t", "--recipe", "tiny.toml", "--out", "models/a b", *DATA], "cannot be a model's"),
        (["evaluate", "models/none", "--data", "dev.tsv"], "no readable manifest.json"),
        (["evaluate", "models/none", "--data", "none.tsv"], "none.tsv: no such file"),
    ],
)
def test_what_the_user_can_put_right_is_one_line_and_exit_code_2(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_student_fits_the_latency_asked_for_and_a_resumed_run_does_not_measure_again(
    folder: Path, teacher_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def largest_within(target_ms: float, teacher: object, recipe: Recipe, data: object, timer: object) -> Recipe:
        assert (target_ms, recipe.budget.objective) == (7.5, "latency")
        return replace(recipe, budget=replace(recipe.budget, ratio=3.0))

    monkeypatch.setattr("ladabert_compress.search.latency.largest_within", largest_within)
    recipe = TINY_RECIPE.replace("p_embedding_svd = 0.5\np_svd = 0.4", 'objective = "latency"')
    (folder / "tiny.toml").write_text(recipe, encoding="utf-8")
    command = ["compress", "--teacher", str(teacher_folder), "--recipe", "tiny.toml", "--out", "models/tiny", *DATA]
    command += ["--epochs", "0.5", "--int8-accuracy-loss", "1", "--target-latency-ms", "7.5"]
    main(command)
    first = json.loads((folder / "models/tiny/manifest.json").read_text(encoding="utf-8"))
    assert first["compression"]["requested_ratio"] == 3.0
    assert first["latency"]["target"]["target_ms"] == 7.5
    assert "7.5 ms asked for" in capsys.readouterr().out
    assert first["compression"]["parameters"] == first["compression"]["nonzero_parameters"]

    def never(*_: object) -> Recipe:
        raise AssertionError("a resumed run measures nothing")

    monkeypatch.setattr("ladabert_compress.search.latency.largest_within", never)
    main([*command, "--resume"])
    second = json.loads((folder / "models/tiny/manifest.json").read_text(encoding="utf-8"))
    assert second["version"] == first["version"]


def test_one_command_without_a_recipe_leads_to_an_artefact_and_says_how_to_serve_it(
    folder: Path, teacher_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = ["--epochs", "0.5", "--max-length", "32", "--iterations", "2", "--int8-accuracy-loss", "1"]
    main(["compress", "--teacher", "teacher", "--ratio", "3.4", "--out", "models/tiny", *steps, *DATA])
    printed = capsys.readouterr().out
    assert printed.startswith("recipe best-x2.5, as none is named; --recipe names another")
    assert printed.splitlines()[-2:] == [
        "written: models/tiny, its history to runs/tiny",
        "next: ladabert-serve --models models",
    ]
    made = json.loads((folder / "models/tiny/manifest.json").read_text(encoding="utf-8"))["compression"]
    assert made["requested_ratio"] == 3.4
    assert made["recipe"]["factorisation"]["error"] == "outputs"


def test_a_teacher_without_names_of_labels_gets_them_from_the_command(
    folder: Path, teacher_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = json.loads((teacher_folder / "config.json").read_text(encoding="utf-8"))
    config |= {"id2label": {"0": "LABEL_0", "1": "LABEL_1"}, "label2id": {"LABEL_0": 0, "LABEL_1": 1}}
    (teacher_folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    command = [
        "compress",
        "--teacher",
        "teacher",
        "--recipe",
        "tiny.toml",
        "--out",
        "models/x",
        "--epochs",
        "0.5",
        *DATA,
    ]
    with pytest.raises(SystemExit):
        main(command)
    assert "name the teacher's labels with --label-names" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*command, "--label-names", "a,b,c"])
    assert "--label-names: 3 names for the teacher's 2 labels (LABEL_0, LABEL_1)" in capsys.readouterr().err
    main([*command, "--label-names", "negative,positive", "--int8-accuracy-loss", "1"])
    manifest = json.loads((folder / "models/x/manifest.json").read_text(encoding="utf-8"))
    assert manifest["labels"] == ["negative", "positive"]
    assert manifest["evaluation"]["teacher_accuracy"] > 0.8


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("model.safetensors", b"half", "cannot be loaded"),
        ("config.json", b'{"model_type": "be', "cannot be loaded"),
        ("ladabert-teacher.json", b'{"name": "x"}', "is no teacher's card"),
    ],
)
def test_a_half_written_teacher_is_one_line(
    folder: Path,
    teacher_folder: Path,
    capsys: pytest.CaptureFixture[str],
    file: str,
    content: bytes,
    message: str,
) -> None:
    (teacher_folder / file).write_bytes(content)
    with pytest.raises(SystemExit) as caught:
        main(["compress", "--teacher", str(teacher_folder), "--recipe", "tiny.toml", "--out", "models/x", *DATA])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_a_run_folder_that_cannot_be_made_is_one_line(
    folder: Path, teacher_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(
            [
                "compress",
                "--teacher",
                str(teacher_folder),
                "--recipe",
                "tiny.toml",
                "--out",
                "models/x",
                *DATA,
                "--run",
                "tiny.toml",
            ]
        )
    assert caught.value.code == 2
    assert "tiny.toml: File exists" in capsys.readouterr().err


def test_cuda_where_there_is_none_is_refused(
    folder: Path, teacher_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit):
        main(["finetune", "--base", str(teacher_folder), "--out", "x", "--device", "cuda", *DATA])
    assert "--device cuda: PyTorch finds no CUDA device" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["finetune", "compress", "evaluate", "search", "report"])
def test_help_is_worth_reading(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    assert len(capsys.readouterr().out.splitlines()) > 15
