"""The README's quick start, executed: its server on the bundled students, its request, its answer."""

from __future__ import annotations

import json
import re
import shlex

import pytest

from tests.service.test_server import started
from tests.test_docs import REPOSITORY

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


def commands() -> list[str]:
    """What stands behind a `$` in a console block, in order."""
    blocks = re.findall(r"```console\n(.*?)```", README, re.DOTALL)
    return [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ ")]


@pytest.mark.slow
@pytest.mark.xdist_group("server")
def test_the_quick_start_gives_the_answer_that_the_readme_shows() -> None:
    serve, curl = commands()[:2]
    assert serve == "make serve"
    assert "ladabert-serve" in (REPOSITORY / "Makefile").read_text(encoding="utf-8").partition("\nserve:")[2]
    words = shlex.split(curl)
    assert words[0] == "curl"
    headers = dict([words[words.index("-H") + 1].split(": ", 1)])
    url = next(word for word in words if word.startswith("http://127.0.0.1:8000/"))
    shown = json.loads(re.search(r"```json\n(.*?)```", README, re.DOTALL)[1])  # type: ignore[index]

    with started(REPOSITORY / "models") as server:
        path = url.removeprefix("http://127.0.0.1:8000")
        status, body = server.request("POST", path, words[words.index("-d") + 1], headers)
    assert status == 200
    answer = json.loads(body)
    assert answer.keys() == shown.keys()
    assert (answer["model"], answer["version"]) == (shown["model"], shown["version"])
    assert answer["timing_ms"].keys() == shown["timing_ms"].keys()
    for prediction, expected in zip(answer["predictions"], shown["predictions"], strict=True):
        assert prediction["score"] == pytest.approx(expected["score"], abs=0.02)
        assert [score["label"] for score in prediction["scores"]] == [score["label"] for score in expected["scores"]]
        for key in ("label", "tokens", "truncated"):
            assert prediction[key] == expected[key]


def test_the_readme_is_read_in_three_minutes() -> None:
    assert len(README.splitlines()) < 120


def test_every_command_of_the_readme_exists() -> None:
    known = ("make serve", "curl", "pip install", "ladabert-compress finetune", "ladabert-compress compress")
    for command in commands():
        assert command.startswith((*known, "ladabert-serve")), command
