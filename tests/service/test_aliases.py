"""Claims about a model's other names: requests may use them, answers and metrics have the name."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ladabert_serve.errors import ArtefactError, StartError
from ladabert_serve.models.artefact import read_artefact
from ladabert_serve.models.naming import choose_default
from ladabert_serve.models.repository import read_artefacts
from ladabert_serve.settings import Settings
from tests.service.conftest import Server, serving
from tests.service.test_classify import check_problem
from tests.service.tiny_artefact import REPOSITORY, write_artefact


@pytest.fixture
def renamed(models_folder: Path) -> Path:
    """Return a models folder with two models, the second of which has an old name and is the default."""
    write_artefact(models_folder, "alpha", seed=1)
    write_artefact(models_folder, "beta", seed=2, aliases=["old-beta", "default"])
    return models_folder


@pytest.fixture
def server(renamed: Path) -> Iterator[Server]:
    """Return a running application with these models."""
    with serving(renamed) as server:
        yield server


def alias_lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "alias" in record.getMessage()]


def test_an_alias_is_answered_and_counted_under_the_name(server: Server) -> None:
    answer = server.classify({"inputs": "a good film", "model": "old-beta"}).json()
    assert answer["model"] == "beta"
    assert answer["predictions"] == server.classify({"inputs": "a good film", "model": "beta"}).json()["predictions"]
    exposition = server.get("/metrics").text
    assert 'ladabert_requests_total{model="beta",route="/classify",status="200"} 2.0' in exposition
    assert "old-beta" not in exposition


def test_an_alias_is_logged_once_and_default_never(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("old-beta", "old-beta", "beta", "default"):
        assert server.classify({"inputs": "a", "model": name}).json()["model"] == "beta"
    (line,) = alias_lines(caplog)
    assert "'old-beta'" in line
    assert "'beta'" in line


def test_a_model_lists_its_aliases_and_is_shown_under_each(server: Server) -> None:
    alpha, beta = server.get("/models").json()["models"]
    assert (alpha["aliases"], beta["aliases"]) == ([], ["old-beta", "default"])
    assert server.get("/models/old-beta").json() == server.get("/models/beta").json()


def test_openapi_says_that_a_model_has_aliases(server: Server) -> None:
    schemas = server.get("/openapi.json").json()["components"]["schemas"]
    for model in ("ModelSummary", "ModelDetail"):
        assert "aliases" in schemas[model]["required"]
        assert schemas[model]["properties"]["aliases"]["items"] == {"type": "string"}


def test_an_unknown_name_is_told_the_names_and_no_aliases(server: Server) -> None:
    problem = check_problem(server.classify({"inputs": "a", "model": "gamma"}), 404)
    assert problem["detail"].endswith("served are: alpha, beta")


def test_the_model_called_default_is_the_default_unless_another_is_set(renamed: Path) -> None:
    artefacts = read_artefacts(Settings(models=renamed))
    assert choose_default(Settings(models=renamed), artefacts) == "beta"
    assert choose_default(Settings(models=renamed, default_model="alpha"), artefacts) == "alpha"


def test_the_default_model_may_be_set_by_alias(models_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_artefact(models_folder, "alpha", seed=1)
    write_artefact(models_folder, "beta", seed=2, aliases=["old-beta"])
    with serving(models_folder, default_model="old-beta") as server:
        assert server.get("/models").json()["default"] == "beta"
        assert server.classify({"inputs": "a"}).json()["model"] == "beta"
        assert server.get("/health/ready").status_code == 200
    assert len(alias_lines(caplog)) == 1


@pytest.mark.parametrize("alias", ["alpha", "old-beta", "gamma"])
def test_a_name_of_two_models_stops_the_start_with_one_line(renamed: Path, alias: str) -> None:
    write_artefact(renamed, "gamma", aliases=["fine", alias])
    with pytest.raises(StartError) as raised, serving(renamed):
        pass
    assert str(raised.value).startswith(f"{renamed / 'gamma' / 'manifest.json'}: its alias {alias!r} is a name of")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("aliases", [["a", "a"], ["a b"], ["../a"], [""], [1], [f"a{n}" for n in range(17)]])
def test_aliases_that_no_request_could_name_are_refused(models_folder: Path, aliases: list[Any]) -> None:
    with pytest.raises(ArtefactError, match=r"\$\.aliases"):
        read_artefact(write_artefact(models_folder, aliases=aliases))


def test_the_bundled_models_answer_to_their_old_names_and_have_a_default_for_sentiment() -> None:
    settings = Settings(models=REPOSITORY / "models")
    artefacts = read_artefacts(settings)
    assert choose_default(settings, artefacts) == "sst2-x2.5"
    old_names = {alias: artefact.name for artefact in artefacts for alias in artefact.aliases}
    assert old_names == {
        "default": "sst2-x2.5",
        "sst2-ladabert-1": "sst2-x2.5",
        "sst2-ladabert-2": "sst2-x5",
        "sst2-ladabert-3": "sst2-x7.5",
        "sst2-ladabert-4": "sst2-x10",
        "sst2-latency": "sst2-latency-x4.7",
        "sst2-latency-x8.5": "sst2-latency-x4.7",
        "mrpc-ladabert-2": "mrpc-x5",
        "topics-ladabert-2": "agnews-x5",
    }
