"""Claims about the models folder that is watched: what is new is loaded, what vanished is unloaded."""

import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from ladabert_serve.models.watch import FolderWatch
from tests.service.conftest import serving
from tests.service.test_repository import VERSIONS, replace
from tests.service.tiny_artefact import write_artefact, write_cascade


@pytest.fixture
def folder(models_folder: Path) -> Path:
    """Return a models folder with one model."""
    write_artefact(models_folder, "alpha", seed=1)
    return models_folder


def test_what_does_not_change_is_not_returned(folder: Path) -> None:
    watch = FolderWatch(folder)
    assert [watch.look() for _ in range(3)] == [([], [])] * 3


def test_a_new_artefact_is_returned_once_after_it_was_the_same_in_two_looks(folder: Path) -> None:
    watch = FolderWatch(folder)
    write_artefact(folder, "beta")
    assert [watch.look() for _ in range(4)] == [([], []), (["beta"], []), ([], []), ([], [])]


def test_an_artefact_that_is_still_being_written_waits(folder: Path) -> None:
    watch = FolderWatch(folder)
    artefact = write_artefact(folder, "beta")
    for number in range(3):
        (artefact / "README.md").write_text("more " * number)
        assert watch.look() == ([], [])
    assert watch.look() == (["beta"], [])


def test_a_replaced_artefact_is_returned_also_when_its_manifest_has_the_same_size(folder: Path) -> None:
    watch = FolderWatch(folder)
    replace(folder, "alpha", VERSIONS[1], seed=1)
    assert [watch.look() for _ in range(3)] == [([], []), (["alpha"], []), ([], [])]


def test_a_vanished_artefact_is_returned_once(folder: Path) -> None:
    write_artefact(folder, "beta")
    watch = FolderWatch(folder)
    shutil.rmtree(folder / "beta")
    assert [watch.look() for _ in range(3)] == [([], []), ([], ["beta"]), ([], [])]


def test_an_artefact_that_is_away_for_a_moment_is_not_unloaded(folder: Path) -> None:
    watch = FolderWatch(folder)
    (folder / "alpha").rename(folder.parent / "alpha")
    assert watch.look() == ([], [])
    (folder.parent / "alpha").rename(folder / "alpha")
    assert [watch.look() for _ in range(3)] == [([], [])] * 3


def test_a_folder_that_is_away_unloads_nothing(folder: Path) -> None:
    watch = FolderWatch(folder)
    folder.rename(folder.parent / "elsewhere")
    assert [watch.look() for _ in range(3)] == [([], [])] * 3
    (folder.parent / "elsewhere").rename(folder)
    assert [watch.look() for _ in range(3)] == [([], [])] * 3


def wait_until(holds: Callable[[], bool]) -> None:
    for _ in range(3000):
        if holds():
            return
        threading.Event().wait(0.01)
    raise TimeoutError


def test_a_served_folder_is_followed_and_a_bad_artefact_is_refused_once(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(folder, watch=True, watch_interval_s=0.01) as server:

        def version(name: str) -> object:
            return server.classify({"inputs": "a", "model": name}).json().get("version")

        assert version("alpha") == VERSIONS[0]
        replace(folder, "alpha", VERSIONS[1])
        wait_until(lambda: version("alpha") == VERSIONS[1])
        bad = write_artefact(folder, "bad")
        (bad / "model.onnx").unlink()
        wait_until(lambda: "model 'bad' is not loaded" in caplog.text)
        write_artefact(folder, "beta")
        wait_until(lambda: version("beta") == VERSIONS[0])
        shutil.rmtree(folder / "beta")
        wait_until(lambda: version("beta") is None)
        assert caplog.text.count("model 'bad' is not loaded") == 1
        assert version("alpha") == VERSIONS[1]


def test_a_cascade_comes_and_goes_with_its_stages(folder: Path) -> None:
    with serving(folder, watch=True, watch_interval_s=0.05) as server:

        def names() -> set[str]:
            return {model["name"] for model in server.get("/models").json()["models"]}

        def wait_for(expected: set[str]) -> None:
            for _ in range(600):
                if names() == expected:
                    return
                threading.Event().wait(0.05)
            raise TimeoutError(f"{names()} are served, not {expected}")

        elsewhere = folder.parent / "elsewhere"
        write_artefact(elsewhere, "small", seed=2)
        write_cascade(elsewhere, "both", ["small", "small"], [[0.9, 0.9]])
        for name in ("both", "small"):
            (elsewhere / name).rename(folder / name)
        wait_for({"alpha", "small", "both"})
        for name in ("both", "small"):
            (folder / name).rename(elsewhere / name)
        wait_for({"alpha"})
