"""``export``: the teacher itself as an artefact, with the checks of a student."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ladabert_compress.artefact.reading import read_manifest
from ladabert_compress.cli.main import main
from ladabert_compress.measure.inference import predict_logits
from ladabert_compress.teacher.folder import load_teacher
from ladabert_serve.models.artefact import read_artefact
from ladabert_serve.models.loading import load_inference
from ladabert_serve.models.tokenizer import TextInput
from tests.compression.conftest import labelled_texts
from tests.compression.teacher.families import save_family

EXPORT = ["export", "--teacher", "teacher", "--out", "models/whole", "--max-length", "32"]
DATA = ["--train", "train.tsv", "--dev", "dev.tsv"]


@pytest.fixture
def folder(folder: Path, teacher_folder: Path) -> Path:
    """The working folder, with a teacher in it."""
    assert teacher_folder.parent == folder
    return folder


def exported(arguments: list[str]) -> dict[str, Any]:
    main([*EXPORT, *arguments])
    return read_manifest(Path("models/whole"))


def test_the_teacher_itself_is_served_and_named_as_such(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = exported([*DATA, "--int8-accuracy-loss", "1"])
    assert "whole: the teacher, not compressed" in capsys.readouterr().out
    made = manifest["compression"]
    assert (made["method"], made["requested_ratio"], made["reached_ratio"]) == ("none", 1, 1.0)
    assert made["parameters"] == manifest["teacher"]["parameters"]
    assert made["recipe"]["export"]["int8_accuracy_loss"] == 1
    figures = manifest["evaluation"]
    assert (figures["data_set"].split("/")[-1], figures["split"], figures["rows"]) == ("dev.tsv", "dev", 24)
    assert set(figures["files"]) == {"model.onnx", "model.int8.onnx"}
    assert figures["files"]["model.onnx"]["agreement"] == 1.0
    assert figures["files"]["model.onnx"]["accuracy"] == figures["teacher_accuracy"]

    texts = labelled_texts(24)
    inference = load_inference(read_artefact(folder / "models" / "whole"), "model.onnx", "cpu")
    served = np.array(inference.run([inference.tokenizer.tokenize(TextInput(text)) for text in texts.texts]))
    teacher = load_teacher(folder / "teacher")
    expected = predict_logits(teacher.model, teacher.encode("rows", texts, 32), torch.device("cpu"))
    assert np.abs(served - expected.numpy()).max() < 1e-4


def test_rows_to_report_on_are_held_out_where_none_are_named(folder: Path) -> None:
    manifest = exported(["--train", "train.tsv", "--precisions", "fp32"])
    assert manifest["evaluation"]["split"] == "held-out"
    assert manifest["evaluation"]["labels"] == "data"


def test_no_labels_are_needed(folder: Path) -> None:
    (folder / "posts.txt").write_text("\n".join(labelled_texts(60).texts), encoding="utf-8")
    figures = exported(["--unlabelled", "posts.txt", "--precisions", "fp32"])["evaluation"]
    assert figures["labels"] == "teacher"
    assert figures["files"]["model.onnx"]["divergence"] == pytest.approx(0, abs=1e-6)


def test_a_pickled_teacher_is_exported_where_that_is_allowed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, _ = save_family(folder / "old", "roberta")
    (folder / "old" / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "old" / "pytorch_model.bin")
    arguments = ["export", "--teacher", "old", "--out", "models/old", "--max-length", "32", "--train", "train.tsv"]
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "pass --allow-pickle" in capsys.readouterr().err
    main([*arguments, "--allow-pickle", "--precisions", "fp32"])
    assert json.loads((folder / "models/old/manifest.json").read_text())["teacher"]["name"] == "old"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no rows to measure on; name them with --train, --unlabelled or both"),
        ([*DATA, "--max-length", "64"], "--max-length: 64 is over the teacher's 40 positions"),
        ([*DATA, "--out", "models/a b"], "cannot be a model's name"),
        ([*DATA, "--int8-logit-error", "-1"], "--int8-logit-error: Input should be greater than or equal to 0"),
    ],
)
def test_what_the_user_can_put_right_is_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*EXPORT, *arguments])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err
    assert not (folder / "models" / "whole").exists()
