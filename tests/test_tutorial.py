"""The tutorial, executed: a tiny DistilBERT and a CSV of Excel's become an answer over HTTP, by the page's commands."""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import DistilBertConfig, DistilBertForSequenceClassification

from tests.compression.conftest import labelled_texts, one_thread  # noqa: F401 - a fixture
from tests.compression.teacher.families import FAMILIES, family_tokenizer
from tests.service.test_server import started
from tests.test_docs import REPOSITORY

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("server")]

PAGE = (REPOSITORY / "docs" / "tutorial.md").read_text(encoding="utf-8")
ROWS = 300
PATIENCE_S = 120
INSTALLS = ("python3 -m venv", "pip install")  # the tests run in an environment that is installed


def commands() -> list[str]:
    """What stands behind a `$` in a console block, in order."""
    blocks = re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)
    return [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ ")]


def block(language: str) -> str:
    """The page's only block of this language."""
    (found,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return str(found)


def write_teacher(folder: Path) -> None:
    """A random DistilBERT of two layers, after a few steps in which it learns the labels, as its users have it."""
    torch.manual_seed(0)
    tokenizer = family_tokenizer("distilbert")
    names = {0: "negative", 1: "positive"}
    positions = 128  # which the recipes read
    sizes = FAMILIES["distilbert"] | {"vocab_size": len(tokenizer), "max_position_embeddings": positions}
    model = DistilBertForSequenceClassification(DistilBertConfig(**sizes, id2label=names))
    data = labelled_texts(100)
    encoded = tokenizer(list(data.texts), padding=True, return_tensors="pt", return_token_type_ids=False)
    labels = torch.tensor([int(label == "positive") for label in data.labels])
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(60):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(model(**encoded).logits, labels).backward()
        optimiser.step()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def write_rows(path: Path) -> None:
    """Rows under the header that the page shows, with what Excel adds: a byte order mark, CRLF, lines without text."""
    data, header = labelled_texts(ROWS), block("csv").splitlines()[0].split(";")
    assert header == ["Text", "Label"]
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file, delimiter=";")
        writer.writerow(header)
        writer.writerows(zip(data.texts, data.labels, strict=True))
        file.write(";\r\n\r\n")


def run_in(folder: Path, command: str) -> str:
    """Run a command of the page in a shell, with this checkout's two commands on its path; return what it printed."""
    programs = folder / "programs"
    programs.mkdir(exist_ok=True)
    for name in ("ladabert-compress", "ladabert-serve"):
        program = programs / name
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m {name.replace("-", "_")} "$@"\n', encoding="utf-8")
        program.chmod(0o755)
    sources = [str(REPOSITORY / half) for half in ("service", "compression")]
    done = subprocess.run(
        ["bash", "-ec", command],
        cwd=folder,
        env={
            **os.environ,
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join(sources),
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
        },
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, f"{command}\n{done.stderr[-2000:]}"
    return done.stdout


def test_three_commands_lead_from_a_folder_and_a_csv_to_an_answer_over_http(tmp_path: Path) -> None:
    write_teacher(tmp_path / "teacher")
    write_rows(tmp_path / "reviews.csv")
    compress, serve, curl, *looks = (command for command in commands() if not command.startswith(INSTALLS))
    printed = run_in(tmp_path, compress)
    assert f"--train: {ROWS} rows; columns Text, Label" in printed
    assert "ladabert-serve --models my-models" in printed.splitlines()[-1]
    assert "all as the manifest says" in [run_in(tmp_path, command) for command in looks][-1]

    program, *options = shlex.split(serve)
    assert (program, options[0]) == ("ladabert-serve", "--models")
    words = shlex.split(curl)
    with started(tmp_path / options[1]) as server:
        url = next(word for word in words if word.startswith("http://127.0.0.1:8000/"))
        headers = dict([words[words.index("-H") + 1].split(": ", 1)])
        asked = words[words.index("-d") + 1]
        status, body = server.request("POST", url.removeprefix("http://127.0.0.1:8000"), asked, headers)
    assert status == 200
    answer, shown = json.loads(body), json.loads(block("json"))
    assert answer["model"] == shown["model"]
    assert answer.keys() == shown.keys()
    assert answer["timing_ms"].keys() == shown["timing_ms"].keys()
    for prediction, expected in zip(answer["predictions"], shown["predictions"], strict=True):
        assert prediction.keys() == expected.keys()
        for key in ("label", "tokens", "truncated"):
            assert prediction[key] == expected[key]
