"""What a user can get wrong, and a full disk: one line, exit code 2, and nothing lost that was there."""

from __future__ import annotations

import errno
import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import BertForSequenceClassification

from ladabert_compress.cli.main import main
from ladabert_compress.data.batches import Batch, EncodedTexts
from ladabert_compress.errors import CheckpointError
from ladabert_compress.files import write_text
from ladabert_compress.recipe import Recipe
from ladabert_compress.teacher.folder import load_teacher
from ladabert_compress.training.distillation import LadaBertLearner
from tests.compression.conftest import TINY_RECIPE
from tests.compression.training.test_loop import run

pytestmark = pytest.mark.slow

DATA = ["--train", "train.tsv", "--dev", "dev.tsv"]


@pytest.fixture
def folder(folder: Path, teacher_folder: Path) -> Path:
    """The working folder, with a teacher in it."""
    assert teacher_folder.parent == folder
    return folder


COMPRESS = ["compress", "--teacher", "teacher", "--recipe", "tiny.toml", "--out", "models/x", *DATA]
FINETUNE = ["finetune", "--base", "teacher", "--out", "mine", "--max-length", "32", *DATA]


def refusal(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The line with which the command ends; bars and progress of what ran before it left out."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert len(lines) == 1
    return lines[0]


@pytest.mark.parametrize(
    ("file", "content", "arguments", "message"),
    [
        ("train.tsv", "sentence\tlabel\ngood\tpositive\nbad\n", COMPRESS, "train.tsv:3: 1 fields, the header has 2"),
        ("train.tsv", "sentence\tlabel\ngood\tpositive\n\nfine\tmaybe\n", COMPRESS, "train.tsv:4: label 'maybe' is"),
        ("dev.tsv", "sentence\tlabel\ngood\t1\nfine\t2\n", COMPRESS, "--dev: dev.tsv:2: label '1' is not one of neg"),
        ("train.tsv", "sentence\tlabel\ngood\tpositive\nfine\tmaybe\n", COMPRESS, "train.tsv:3: label 'maybe' is not"),
        ("train.tsv", "sentence\tlabel\ngood\t\n", COMPRESS, "train.tsv:2: label '' is not one of negative, positive"),
        ("dev.tsv", "sentence\tlabel\ngood\tnew\n", FINETUNE, "--dev: dev.tsv:2: label 'new' is not one of negative"),
        ("train.tsv", "sentence\tlabel\ngood\tyes\nbad\t\n", FINETUNE, "a classifier needs two or more"),
        ("train.tsv", "", COMPRESS, "train.tsv: no rows"),
        ("train.tsv", "sentence\tlabel\n", COMPRESS, "train.tsv: no rows"),
        ("dev.tsv", "sentence1\tsentence2\tlabel\na\tb\t1\n", COMPRESS, "--train is a single task, --dev a pair task"),
        ("tiny.toml", TINY_RECIPE + "\nspeed = 3\n", COMPRESS, "tiny.toml: training.speed: Unexpected keyword"),
        ("tiny.toml", TINY_RECIPE.replace("4.0", "400.0"), COMPRESS, "budget.ratio: 400 cannot be met"),
        (
            "tiny.toml",
            TINY_RECIPE.replace("= 32", "= 64"),
            COMPRESS,
            "training.max_length: 64 is over the teacher's 40",
        ),
        ("tiny.toml", TINY_RECIPE, [*COMPRESS, "--run", "models/x"], "--run: models/x is --out too"),
        ("tiny.toml", TINY_RECIPE, [*FINETUNE, "--max-length", "64"], "--max-length: 64 is over the base's 40"),
    ],
)
def test_what_is_wrong_is_named_where_it_stands(
    folder: Path, capsys: pytest.CaptureFixture[str], file: str, content: str, arguments: list[str], message: str
) -> None:
    (folder / file).write_text(content, encoding="utf-8")
    assert message in refusal(arguments, capsys)
    assert not list((folder / "models").glob("x*"))


def test_a_teacher_with_another_models_tokenizer_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tokenizer_file = folder / "teacher" / "tokenizer.json"
    tokenizer = json.loads(tokenizer_file.read_text(encoding="utf-8"))
    tokenizer["model"]["vocab"] |= {f"other{index}": index for index in range(19, 119)}
    tokenizer_file.write_text(json.dumps(tokenizer), encoding="utf-8")
    assert "its tokenizer has 119 tokens, the model knows 64" in refusal(COMPRESS, capsys)


def test_a_tokenizer_that_lacks_much_of_the_models_vocabulary_is_refused(
    folder: Path, tiny_bert: BertForSequenceClassification, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_bert.resize_token_embeddings(19 + 127)  # a vocabulary rounded up
    tiny_bert.save_pretrained(folder / "teacher")
    load_teacher(folder / "teacher")
    tiny_bert.resize_token_embeddings(19 + 128)
    tiny_bert.save_pretrained(folder / "teacher")
    assert "its tokenizer has 19 tokens, the model knows 147" in refusal(COMPRESS, capsys)


def test_a_tokenizer_that_pads_otherwise_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config_file = folder / "teacher" / "config.json"
    config = json.loads(config_file.read_text(encoding="utf-8"))
    config_file.write_text(json.dumps(config | {"pad_token_id": 3}), encoding="utf-8")
    assert "pad_token_id is 0 in its tokenizer and 3 in config.json" in refusal(COMPRESS, capsys)


def test_another_tokenizer_of_the_same_size_shows_in_predictions_no_better_than_chance(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer_file = folder / "teacher" / "tokenizer.json"
    tokenizer = json.loads(tokenizer_file.read_text(encoding="utf-8"))
    vocabulary = tokenizer["model"]["vocab"]
    words = list(vocabulary)[5:]
    vocabulary |= {word: 5 + (index + 5) % len(words) for index, word in enumerate(words)}
    tokenizer_file.write_text(json.dumps(tokenizer), encoding="utf-8")
    assert "teacher: tells the labels of --dev no better than chance (mean recall 0." in refusal(COMPRESS, capsys)
    assert not (folder / "runs").exists()


@contextmanager
def full_disk(bytes_left: int) -> Iterator[None]:
    """No file of this process may grow over a size: writes fail as on a disk without room."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_left, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


class LearnerOnAFillingDisk(LadaBertLearner):
    """The disk is full after some steps."""

    room_for = 5

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        self.room_for -= 1
        if self.room_for == 0:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        return super().losses(batch)


def test_a_disk_without_room_for_a_checkpoint_is_named_as_the_reason(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with full_disk(200):
        line = refusal([*COMPRESS, "--run", "here"], capsys)
    assert line.endswith(
        "here/checkpoint.pt: cannot be written (File too large); put that right and continue with --resume"
    )


def test_a_file_that_cannot_be_written_whole_stays_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    file.write_text("old", encoding="utf-8")
    with full_disk(100), pytest.raises(OSError, match="File too large") as caught:
        write_text(file, "new " * 100)
    assert caught.value.filename == str(file)
    assert file.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [file]


SEARCH = ["search", "--teacher", "teacher", "--train", "train.tsv", "--recipe", "tiny.toml", "--out", "found.toml"]


def test_a_search_goes_on_after_the_disk_was_full(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    search = [*SEARCH, "--trials", "6", "--steps", "2", "--processes", "1", "--run", "filled", "--resume"]
    journal = folder / "filled" / "search.journal"
    with full_disk(3500):
        line = refusal(search, capsys)
    assert "filled/search.journal: cannot be written (File too large)" in line
    written = journal.read_bytes()
    assert not written.endswith(b"\n")  # the last line is torn
    main(search)
    whole_lines = written[: written.rfind(b"\n") + 1]
    assert journal.read_bytes().startswith(whole_lines)
    assert "search over 6 students" in (folder / "found.toml").read_text(encoding="utf-8")


def test_a_disk_that_fills_up_keeps_the_last_checkpoint_and_the_run_goes_on_from_it(
    tiny_bert: BertForSequenceClassification, tiny_recipe: Recipe, encoded: EncodedTexts, tmp_path: Path
) -> None:
    expected = run(LadaBertLearner(tiny_bert, tiny_recipe, 5, encoded), encoded, tiny_recipe, tmp_path / "whole.pt")
    checkpoint = tmp_path / "filled.pt"
    with full_disk(10**9), pytest.raises(CheckpointError, match=r"filled.pt: cannot be written .* with --resume"):
        run(LearnerOnAFillingDisk(tiny_bert, tiny_recipe, 5, encoded), encoded, tiny_recipe, checkpoint)
    assert torch.load(checkpoint, weights_only=True)["step"] == 4
    assert sorted(path.name for path in tmp_path.glob("*.pt*")) == ["filled.pt", "whole.pt"]
    resumed = run(LadaBertLearner(tiny_bert, tiny_recipe, 5, encoded), encoded, tiny_recipe, checkpoint, resume=True)
    assert all(torch.equal(resumed[name], expected[name]) for name in expected)


@pytest.mark.parametrize(
    ("write", "error", "place"),
    [
        ("ladabert_compress.student.saved.save_file", SafetensorError("I/O error: No space left on device"), "runs/x"),
        ("ladabert_compress.artefact.writing.store", OSError(errno.ENOSPC, "No space left on device"), "models/x"),
    ],
)
def test_a_disk_that_is_full_at_the_end_costs_no_training(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    write: str,
    error: Exception,
    place: str,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(write, fail)
        line = refusal(COMPRESS, capsys)
    assert f"{place}: cannot be written" in line
    assert "No space left on device); put that right and continue with --resume" in line
    assert [path.name for path in (folder / "models").iterdir()] == []
    with monkeypatch.context() as patched:
        patched.setattr(LadaBertLearner, "losses", fail)  # nothing is trained again
        main([*COMPRESS, "--resume"])
    assert (folder / "models" / "x" / "manifest.json").is_file()
