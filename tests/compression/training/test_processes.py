import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ladabert_compress.cli.main import main
from ladabert_compress.data.texts import LabelledTexts
from ladabert_compress.measure.inference import predict_logits
from ladabert_compress.recipe import Recipe
from ladabert_compress.student.saved import load_student
from ladabert_compress.training.processes import ALONE, Processes
from ladabert_compress.training.run import compress
from tests.compression.conftest import REPOSITORY, TINY_RECIPE, labelled_texts, models_folder

pytestmark = pytest.mark.slow


@given(rows=st.lists(st.integers(), min_size=1, max_size=40), count=st.integers(1, 6))
def test_every_row_of_a_batch_is_learnt_from_once_whatever_the_number_of_processes(rows: list[int], count: int) -> None:
    shares = [Processes(rank, count).share(rows) for rank in range(count)]
    assert sum(weight for _, weight in shares) == pytest.approx(1)
    assert sorted(row for own, weight in shares if weight for row in own) == sorted(rows)
    assert all(own for own, _ in shares)


def test_a_process_alone_learns_from_whole_batches_and_leaves_gradients_as_they_are() -> None:
    assert ALONE.share([3, 1, 2]) == ([3, 1, 2], 1.0)
    layer = nn.Linear(2, 1)
    layer(torch.ones(1, 2)).backward()
    ALONE.sum_gradients(layer)
    assert layer.weight.grad is not None
    assert torch.equal(layer.weight.grad, torch.ones(1, 2))


def texts_of_four_words(rows: int) -> LabelledTexts:
    """Texts of one length, of which the means over tokens have the same weight however a batch is shared out."""
    texts = labelled_texts(rows)
    return LabelledTexts(tuple(" ".join((text.split() * 4)[:4]) for text in texts.texts), None, texts.labels)


def launch(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Two processes of a command on the CPU, as accelerate starts them."""
    sources = [str(REPOSITORY), str(REPOSITORY / "compression")]
    two = ["--multi_gpu", "--num_processes=2", "--num_machines=1", "--main_process_port=0"]
    plain = ["--mixed_precision=no", "--dynamo_backend=no"]
    return subprocess.run(
        [sys.executable, "-m", "accelerate.commands.launch", *two, *plain, *command],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sources), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_two_processes_make_the_student_that_one_makes(
    teacher_folder: Path, tiny_recipe: Recipe, tmp_path: Path
) -> None:
    models_folder(tmp_path)
    (tmp_path / "tiny.toml").write_text(TINY_RECIPE, encoding="utf-8")
    for name, rows in (("train.tsv", 60), ("dev.tsv", 24)):
        data = texts_of_four_words(rows)
        lines = [f"{text}\t{label}" for text, label in zip(data.texts, data.labels, strict=True)]
        (tmp_path / name).write_text("\n".join(("sentence\tlabel", *lines)) + "\n", encoding="utf-8")
    paths = ["--teacher", "teacher", "--recipe", "tiny.toml", "--train", "train.tsv", "--dev", "dev.tsv"]
    options = ["--device", "cpu", "--precisions", "fp32", "--out", "models/two"]
    finished = launch(tmp_path, "-m", "ladabert_compress", "compress", *paths, *options)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.count("non-zero parameters") == 1  # the first process speaks for both
    two = tmp_path / "runs" / "two"
    assert json.loads((two / "history.json").read_text(encoding="utf-8"))["processes"] == 2

    result = compress(teacher_folder, tiny_recipe, texts_of_four_words(60), texts_of_four_words(24), tmp_path / "one")
    one_logits, two_logits = (
        predict_logits(load_student(folder), result.dev_data, torch.device("cpu")) for folder in (tmp_path / "one", two)
    )
    assert torch.allclose(one_logits, two_logits, atol=1e-3), (one_logits - two_logits).abs().max()


EACH_FINDS_ITS_OWN = """
import json, os
from pathlib import Path
from ladabert_compress.training.run import compress
from ladabert_compress.recipe import load_recipe
from tests.compression.training.test_processes import texts_of_four_words

rank = int(os.environ["RANK"])
result = compress(
    Path("teacher"), load_recipe(Path("tiny.toml")), texts_of_four_words(60), texts_of_four_words(24), Path("run"),
    find_ratio=lambda teacher, data: 3.0 + rank, device_name="cpu",
)
Path(f"found-{rank}.json").write_text(json.dumps([result.recipe.budget.ratio, result.student.ratio()]))
"""


def test_the_ratio_that_the_first_process_finds_is_every_processs(teacher_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(TINY_RECIPE, encoding="utf-8")
    (tmp_path / "script.py").write_text(EACH_FINDS_ITS_OWN, encoding="utf-8")
    finished = launch(tmp_path, "script.py")
    assert finished.returncode == 0, finished.stderr
    first, second = (json.loads((tmp_path / f"found-{rank}.json").read_text(encoding="utf-8")) for rank in (0, 1))
    assert first == second == [3.0, pytest.approx(3.0, rel=0.03)]


ONE_IS_STOPPED = """
import os, signal
from pathlib import Path
from ladabert_compress.errors import StoppedError
from ladabert_compress.recipe import load_recipe
from ladabert_compress.training import run
from ladabert_compress.training.distillation import LadaBertLearner
from tests.compression.training.test_processes import texts_of_four_words

rank = int(os.environ["RANK"])

class Stopped(LadaBertLearner):
    step = 0
    def losses(self, batch):
        self.step += 1
        if self.step == 3 and rank == 1:
            signal.raise_signal(signal.SIGINT)
        return super().losses(batch)

run.LadaBertLearner = Stopped
try:
    run.compress(
        Path("teacher"), load_recipe("tiny.toml"), texts_of_four_words(60), texts_of_four_words(24), Path("run"),
        device_name="cpu",
    )
except StoppedError as error:
    Path(f"stopped-{rank}").write_text(str(error))
"""


def test_all_processes_stop_after_the_step_in_which_one_of_them_is_asked_to(
    teacher_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "tiny.toml").write_text(TINY_RECIPE, encoding="utf-8")
    (tmp_path / "script.py").write_text(ONE_IS_STOPPED, encoding="utf-8")
    finished = launch(tmp_path, "script.py")
    assert finished.returncode == 0, finished.stderr
    first, second = ((tmp_path / f"stopped-{rank}").read_text(encoding="utf-8") for rank in (0, 1))
    assert first == second
    assert "stopped after step 3 of" in first
    assert torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["step"] == 3


ONE_DIFFERS = """
import os, sys
from pathlib import Path
import torch
from ladabert_compress.errors import DivergenceError
from ladabert_compress.recipe import load_recipe
from ladabert_compress.teacher.identity import weights_digest
from ladabert_compress.training import run
from ladabert_compress.training.distillation import LadaBertLearner
from tests.compression.training.test_processes import texts_of_four_words

rank, at_step = int(os.environ["RANK"]), int(sys.argv[1])

class Different(LadaBertLearner):
    step = 0
    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.change(0)
    def change(self, step):
        if rank == 1 and step == at_step:
            with torch.no_grad():
                self.module.classifier.weight.add_(1.0)
    def after_update(self):
        super().after_update()
        self.step += 1
        self.change(self.step)

run.LadaBertLearner = Different
try:
    result = run.compress(
        Path("teacher"), load_recipe("tiny.toml"), texts_of_four_words(60), texts_of_four_words(24), Path("run"),
        device_name="cpu",
    )
    Path(f"end-{rank}").write_text(weights_digest(result.student.model))
except DivergenceError as error:
    Path(f"end-{rank}").write_text(str(error))
"""


@pytest.mark.parametrize("at_step", [0, 3])
def test_processes_start_with_the_weights_of_the_first_and_compare_them_at_each_shrink(
    at_step: int, teacher_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "tiny.toml").write_text(TINY_RECIPE, encoding="utf-8")
    (tmp_path / "script.py").write_text(ONE_DIFFERS, encoding="utf-8")
    finished = launch(tmp_path, "script.py", str(at_step))
    assert finished.returncode == 0, finished.stderr
    first, second = ((tmp_path / f"end-{rank}").read_text(encoding="utf-8") for rank in (0, 1))
    assert first == second
    assert first.startswith("iteration 2: process 1 has other weights than process 0") == (at_step == 3)


def test_a_process_that_is_not_the_first_says_nothing(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(SystemExit) as caught:
        main(["evaluate", "models/none", "--data", "none.tsv"])
    assert caught.value.code == 2
    assert capfd.readouterr() == ("", "")
