"""Claims about Ctrl-C and SIGTERM: a run ends after a step, with a checkpoint and a line that says how to go on."""

from __future__ import annotations

import pickle
import signal
import threading
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import BertForSequenceClassification

from ladabert_compress.cli.main import main
from ladabert_compress.data.batches import Batch, EncodedTexts
from ladabert_compress.errors import StoppedError
from ladabert_compress.recipe import Recipe
from ladabert_compress.training.distillation import LadaBertLearner
from ladabert_compress.training.stopping import SIGNALS, stop_requests
from tests.compression.training.test_loop import run

pytestmark = pytest.mark.slow

COMPRESS = ["compress", "--teacher", "teacher", "--recipe", "tiny.toml", "--out", "models/x"]
DATA = ["--train", "train.tsv", "--dev", "dev.tsv"]


class SignalledLearner(LadaBertLearner):
    """Gets signals in the middle of its third step."""

    signals: tuple[signal.Signals, ...] = (signal.SIGINT,)
    step = 0

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        self.step += 1
        if self.step == 3:
            for number in self.signals:
                signal.raise_signal(number)
        return super().losses(batch)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_stopped_run_ends_after_its_step_and_goes_on_to_the_same_student(
    number: signal.Signals,
    tiny_bert: BertForSequenceClassification,
    tiny_recipe: Recipe,
    encoded: EncodedTexts,
    tmp_path: Path,
) -> None:
    expected = run(LadaBertLearner(tiny_bert, tiny_recipe, 5, encoded), encoded, tiny_recipe, tmp_path / "whole.pt")
    learner, before = SignalledLearner(tiny_bert, tiny_recipe, 5, encoded), signal.getsignal(number)
    learner.signals = (number,)
    with pytest.raises(StoppedError, match=r"train: stopped after step 3 of \d+$") as caught:
        run(learner, encoded, tiny_recipe, tmp_path / "run.pt")
    assert caught.value.signal_number == number
    assert pickle.loads(pickle.dumps(caught.value)).signal_number == number  # from a process of a benchmark
    assert signal.getsignal(number) == before
    assert torch.load(tmp_path / "run.pt", weights_only=True)["step"] == 3
    again = LadaBertLearner(tiny_bert, tiny_recipe, 5, encoded)
    resumed = run(again, encoded, tiny_recipe, tmp_path / "run.pt", resume=True)
    assert all(torch.equal(resumed[name], expected[name]) for name in expected)


def test_a_second_signal_does_not_wait_for_the_step(
    tiny_bert: BertForSequenceClassification, tiny_recipe: Recipe, encoded: EncodedTexts, tmp_path: Path
) -> None:
    learner = SignalledLearner(tiny_bert, tiny_recipe, 5, encoded)
    learner.signals = (signal.SIGINT, signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run(learner, encoded, tiny_recipe, tmp_path / "run.pt")
    assert torch.load(tmp_path / "run.pt", weights_only=True)["step"] == 2


def test_outside_of_the_main_thread_signals_stay_as_they_are() -> None:
    before, found = signal.getsignal(signal.SIGINT), []

    def look() -> None:
        with stop_requests():
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert found == [before]


@pytest.mark.parametrize("number", SIGNALS)
def test_a_stopped_command_says_in_one_line_how_to_go_on_and_does(
    number: signal.Signals,
    folder: Path,
    teacher_folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    SignalledLearner.signals = (number,)
    with monkeypatch.context() as patched:
        patched.setattr("ladabert_compress.training.run.LadaBertLearner", SignalledLearner)
        with pytest.raises(SystemExit) as caught:
            main([*COMPRESS, *DATA])
    assert caught.value.code == 128 + number
    printed = capsys.readouterr().err
    last = printed.splitlines()[-1]
    assert last.startswith("ladabert-compress: compress x: stopped after step 3 of ")
    assert last.endswith("; the same command with --resume goes on from there")
    assert "Traceback" not in printed
    main([*COMPRESS, *DATA, "--resume", "--int8-accuracy-loss", "1"])
    assert (folder / "models" / "x" / "manifest.json").is_file()


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_before_the_first_step_ends_the_command_in_one_line(
    number: signal.Signals,
    folder: Path,
    teacher_folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ladabert_compress.training.run.load_teacher", lambda *_: signal.raise_signal(number))
    with pytest.raises(SystemExit) as caught:
        main([*COMPRESS, "--train", "train.tsv"])
    assert caught.value.code == 128 + number
    assert capsys.readouterr().err == (
        "ladabert-compress: stopped; the same command with --resume goes on from its last checkpoint\n"
    )
