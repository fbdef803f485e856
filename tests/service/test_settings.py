"""Claims about settings: every one is an option, a variable and a line of the documentation."""

import json
import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from ladabert_serve.cli import main, read_settings
from ladabert_serve.settings import Settings
from tests.service.conftest import serving
from tests.service.tiny_artefact import REPOSITORY

SETTINGS, HTTP, METRICS, PROTOCOL = (
    (REPOSITORY / "docs" / "reference" / f"{name}.md").read_text(encoding="utf-8")
    for name in ("settings", "http", "metrics", "open-inference-protocol")
)
FIELDS = sorted(Settings.model_fields)


def default(name: str) -> str:
    value = Settings.model_fields[name].default
    return "unset" if value is None else str(value).lower()


@pytest.mark.parametrize("name", FIELDS)
def test_a_setting_is_documented_with_its_default(name: str) -> None:
    description = Settings.model_fields[name].description
    assert description
    assert f"| `LADABERT_{name.upper()}` | {default(name)} | {description} |" in SETTINGS


def test_every_number_is_documented_with_what_it_trades() -> None:
    numbers = {name for name in FIELDS if Settings.model_fields[name].annotation in (int, float, int | None)} - {
        "port",
        "admin_port",
    }
    table = SETTINGS.partition("What each number trades")[2].partition("\n## ")[0]
    firsts = [line.split(" | ")[0] for line in table.splitlines() if line.startswith("| `") and line.count(" | ") == 2]
    assert sorted(re.findall("`([A-Z_]+)`", "".join(firsts))) == sorted(name.upper() for name in numbers)


def test_no_setting_is_documented_that_does_not_exist() -> None:
    names = {name.upper() for name in FIELDS}
    assert set(re.findall(r"`LADABERT_([A-Z_]+)`", SETTINGS)) == names
    of_compose = set(re.findall(r"LADABERT_([A-Z_]+)", (REPOSITORY / "docker-compose.yml").read_text(encoding="utf-8")))
    for page in (REPOSITORY / "docs").rglob("*.md"):
        mentioned = set(re.findall(r"\bLADABERT_([A-Z_]+)\b", page.read_text(encoding="utf-8")))
        assert mentioned <= names | of_compose, page.name


@pytest.mark.parametrize("name", FIELDS)
def test_every_setting_is_read_somewhere(name: str) -> None:
    sources = [path for path in (REPOSITORY / "service").rglob("*.py") if path.name != "settings.py"]
    assert any(re.search(rf"settings\.{name}\b", path.read_text()) for path in sources)


def test_help_names_every_option_with_default_and_variable(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        main(["--help"])
    assert exited.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for name in FIELDS:
        assert f"--{name.replace('_', '-')}" in text
        assert f"(default: {default(name)}; LADABERT_{name.upper()})" in text


def test_an_option_wins_over_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LADABERT_PORT", "1")
    settings = read_settings({"port": "2"})
    assert settings is not None
    assert settings.port == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--port", "x"], ["--port", "'x'"]),
        (["--port", "65536"], ["--port", "65535"]),
        (["--provider", "tpu"], ["--provider", "cuda"]),
        (["--nope"], ["--nope"]),
        (["serve"], ["serve"]),
        (["--max-batch-padding", "1"], ["--max-batch-padding"]),
        (["check"], ["artefact"]),
        (["health", "--url", "ftp://x"], ["--url"]),
    ],
    ids=str,
)
def test_a_wrong_option_is_exit_2_and_one_line(
    arguments: list[str], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code: object = main(arguments)
    except SystemExit as exited:
        code = exited.code
    captured = capsys.readouterr()
    assert code == 2
    assert len(captured.err.splitlines()) == 1
    assert captured.out == ""
    for word in words:
        assert word in captured.err


def test_a_wrong_variable_is_exit_2_and_one_line_that_names_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LADABERT_MAX_INPUTS", "many")
    assert main([]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "LADABERT_MAX_INPUTS" in line
    assert "many" in line


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LADABERT_RUNNERS", "")
    assert Settings().runners is None


def test_settings_are_frozen(tmp_path: Path) -> None:
    with pytest.raises(ValidationError):
        Settings(models=tmp_path).port = 1


def test_every_problem_type_and_metric_is_documented() -> None:
    from ladabert_serve.errors import OUTCOMES
    from ladabert_serve.observability.metrics import Metrics

    for outcome in OUTCOMES.values():
        if outcome.status != 499:
            assert f"`{outcome.title.lower().replace(' ', '-')}`" in HTTP, outcome
    for family in Metrics(["/classify"]).registry.collect():
        name = family.name + ("_total" if family.type == "counter" else "")
        assert f"`{name}" in METRICS, name


def test_every_route_is_documented(models: Path) -> None:
    with serving(models) as server:
        paths = server.get("/openapi.json").json()["paths"]
    for path in paths:
        assert any(f"`{path}`" in page or f" {path}`" in page for page in (HTTP, PROTOCOL)), path


def test_the_documented_answer_fits_the_schema() -> None:
    from ladabert_serve.http.schemas import ClassifyResponse

    (example,) = re.findall(r"```json\n(.*?)```", HTTP, re.DOTALL)[1:2]
    ClassifyResponse.model_validate(json.loads(example))
