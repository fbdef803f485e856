"""The tutorial, executed: a tiny teacher and made-up rows become an answer over HTTP, by the page's own commands."""

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
from transformers import BertForSequenceClassification, PreTrainedTokenizerFast

from ladabert_compress.teacher.folder import TeacherCard, save_teacher
from tests.compression.conftest import labelled_texts, one_thread, tiny_config, tokenizer  # noqa: F401 - fixtures
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


def write_teacher(folder: Path, tokenizer: PreTrainedTokenizerFast) -> None:  # noqa: F811
    """A random BERT of two layers, after a few steps in which it learns the labels."""
    torch.manual_seed(0)
    config = tiny_config()
    config.max_position_embeddings = 128  # the recipes read as many tokens
    model = BertForSequenceClassification(config)
    data = labelled_texts(100)
    encoded = tokenizer(list(data.texts), padding=True, return_tensors="pt", return_token_type_ids=True)
    labels = torch.tensor([int(label == "positive") for label in data.labels])
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(60):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(model(**encoded).logits, labels).backward()
        optimiser.step()
    save_teacher(folder, model, tokenizer, TeacherCard("tiny", "random", "Apache-2.0"), {})


def write_rows(path: Path) -> None:
    """Rows under the header that the page shows."""
    data = labelled_texts(ROWS)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(block("csv").splitlines()[0].split(","))
        writer.writerows(zip(data.texts, data.labels, strict=True))


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


def test_the_tutorial_leads_from_a_folder_and_a_csv_to_an_answer_over_http(
    tmp_path: Path,
    tokenizer: PreTrainedTokenizerFast,  # noqa: F811
) -> None:
    write_teacher(tmp_path / "teacher", tokenizer)
    write_rows(tmp_path / "reviews.csv")
    *before, serve, curl = (command for command in commands() if not command.startswith(INSTALLS))
    printed = [run_in(tmp_path, command) for command in before]

    lines = {name: (tmp_path / name).read_text(encoding="utf-8").splitlines() for name in ("train.csv", "dev.csv")}
    assert all(rows[0] == "text,label" for rows in lines.values())
    assert sum(map(len, lines.values())) == ROWS + 2
    assert "all as the manifest says" in printed[-1]

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
