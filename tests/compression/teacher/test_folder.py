"""Where a teacher's weights may come from: safetensors, a pickle's tensors where that is allowed, the hub's cache."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ladabert_compress.errors import TeacherError
from ladabert_compress.teacher.folder import TeacherCard, load_teacher
from ladabert_compress.teacher.source import TeacherSource
from tests.compression.teacher.families import save_family

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LOAD_FROM_THE_HUB = """
import json
from ladabert_compress.teacher.folder import load_teacher
from ladabert_compress.teacher.source import TeacherSource
print(json.dumps(load_teacher(TeacherSource("owner/reviews", "v1")).card.to_dict()))
"""


@pytest.fixture
def pickled(tmp_path: Path) -> Path:
    """A DistilBERT's folder whose weights are a pickle."""
    model, _ = save_family(tmp_path / "teacher", "distilbert")
    (tmp_path / "teacher" / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "teacher" / "pytorch_model.bin")
    return tmp_path / "teacher"


def test_a_pickle_is_read_only_where_that_is_allowed(pickled: Path, tmp_path: Path) -> None:
    with pytest.raises(TeacherError, match=r"weights are a pickle \(pytorch_model\.bin\); .* pass --allow-pickle"):
        load_teacher(pickled)
    save_family(tmp_path / "safe", "distilbert")
    expected = load_teacher(tmp_path / "safe").model.state_dict()
    found = load_teacher(TeacherSource(str(pickled), allow_pickle=True)).model.state_dict()
    assert all(torch.equal(found[name], weight) for name, weight in expected.items())


def test_code_in_a_pickle_is_not_run(pickled: Path, tmp_path: Path) -> None:
    class Code:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "made"),)

    with (pickled / "pytorch_model.bin").open("wb") as file:
        pickle.dump({"classifier.bias": Code()}, file, protocol=2)
    with pytest.raises(TeacherError, match="cannot be loaded: "):
        load_teacher(TeacherSource(str(pickled), allow_pickle=True))
    assert not (tmp_path / "made").exists()


def test_a_folder_has_no_revisions(tmp_path: Path) -> None:
    save_family(tmp_path, "bert")
    with pytest.raises(TeacherError, match="is a folder, which has no revisions; leave --revision out"):
        load_teacher(TeacherSource(str(tmp_path), revision="v1"))


@pytest.mark.parametrize(
    ("recorded", "source"), [("distilbert-base-uncased", "distilbert-base-uncased"), ("", "mine"), ("/x/base", "base")]
)
def test_a_card_never_names_a_path_of_this_machine(recorded: str, source: str, tmp_path: Path) -> None:
    save_family(tmp_path / "mine", "distilbert")
    config_file = tmp_path / "mine" / "config.json"
    config = json.loads(config_file.read_text(encoding="utf-8"))
    config_file.write_text(json.dumps(config | {"_name_or_path": recorded}), encoding="utf-8")
    assert load_teacher(tmp_path / "mine").card == TeacherCard("mine", source, "unknown")


@pytest.mark.parametrize(
    ("name", "is_one"), [("owner/name", True), ("name", False), ("a/b/c", False), ("/owner/name", False)]
)
def test_a_hub_id_has_an_owner(name: str, is_one: bool) -> None:
    assert TeacherSource(name).is_hub_id == is_one


def test_a_name_that_is_missing_in_a_folder_is_no_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "teachers").mkdir()
    with pytest.raises(TeacherError, match=r"teachers/mien: no config\.json there"):
        load_teacher(Path("teachers/mien"))


@pytest.mark.slow
def test_the_commit_of_a_hub_id_is_recorded(tmp_path: Path) -> None:
    cached = tmp_path / "models--owner--reviews"
    save_family(cached / "snapshots" / COMMIT, "electra")
    (cached / "refs").mkdir()
    (cached / "refs" / "v1").write_text(COMMIT)
    environment = os.environ | {"HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    answer = subprocess.run(
        [sys.executable, "-c", LOAD_FROM_THE_HUB], env=environment, capture_output=True, check=False
    )
    assert answer.returncode == 0, answer.stderr.decode()
    card = json.loads(answer.stdout)
    assert card == {"name": "reviews", "source": "owner/reviews", "licence": "unknown", "revision": COMMIT}
