"""Claims about what a command does before its work: it answers at once, and names what is missing."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from ladabert_compress.cli.main import main
from tests.compression.conftest import REPOSITORY

HEAVY = ("torch", "transformers", "onnx", "onnxruntime", "optuna", "matplotlib", "accelerate", "datasets")
WITHOUT = """
import sys
from importlib import abc
class Missing(abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
from ladabert_compress.cli.main import main
main({arguments!r})
"""
ROWS = "text\tlabel\na\t1\nb\t0\n"


def extra() -> list[str]:
    """What the extra `compression` installs."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [name.partition(">")[0] for name in project["optional-dependencies"]["compression"]]


def run(script: str, cwd: Path = REPOSITORY) -> subprocess.CompletedProcess[str]:
    """A fresh process, which has imported nothing yet."""
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY / "compression")}
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=cwd, env=environment)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["compress", "--help"],
        ["compress", "--what"],
        ["compress", "--teacher", "t", "--out", "models/x", "--objective", "speed"],
        ["compress", "--teacher", "t", "--out", "models/x", "--recipe", "none", "--train", "F"],
        ["compress", "--teacher", "t", "--out", "models/a b", "--train", "F"],
        ["compress", "--teacher", "t", "--out", "models/x", "--train", "no-such-file.tsv"],
        ["compress", "--teacher", "t", "--out", "models/x"],
        ["finetune", "--base", "b", "--out", "docs", "--train", "F", "--dev", "F"],
        ["finetune", "--base", "b", "--out", "x", "--batch-size", "0", "--train", "F", "--dev", "F"],
        ["search", "--teacher", "t", "--out", "x.toml", "--recipe", "none", "--train", "F"],
        ["cascade", "--stages", "models/x", "--out", "models/y", "--target", "agreement=0.9", "--data", "F"],
    ],
)
def test_help_and_wrong_options_wait_for_no_heavy_import(arguments: list[str]) -> None:
    done = run(
        "import sys\nfrom ladabert_compress.cli.main import main\n"
        f"try:\n    main({arguments!r})\nexcept SystemExit as end:\n"
        f"    loaded = [name for name in {HEAVY!r} if name in sys.modules]\n"
        "    print('loaded:', loaded, 'code:', end.code or 0)\n"
    )
    asked = {"--help", "--version"} & set(arguments)
    assert done.stdout.splitlines()[-1] == f"loaded: [] code: {0 if asked else 2}", done.stderr
    assert bool(asked) or done.stderr.count("\n") == 1


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert not caught.value.code
    assert capsys.readouterr().out == f"ladabert-compress {metadata.version('ladabert')}\n"


@pytest.mark.parametrize(
    "command",
    [
        ["finetune", "--base", "b", "--out", "x", "--train", "rows.tsv", "--dev", "rows.tsv"],
        ["compress", "--teacher", "t", "--out", "x", "--train", "rows.tsv"],
        ["search", "--teacher", "t", "--out", "x.toml", "--train", "rows.tsv"],
        ["evaluate", "models/x", "--data", "rows.tsv"],
        ["report", "models/x", "--out", "x.html"],
        ["bench", "models/x"],
        ["fp16", "models/x"],
    ],
)
def test_without_the_extra_one_line_says_what_to_install(command: list[str], tmp_path: Path) -> None:
    (tmp_path / "rows.tsv").write_text(ROWS, encoding="utf-8")
    done = run(WITHOUT.format(names=set(extra()), arguments=command), tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.endswith(" is not installed, and this command needs it: pip install 'ladabert[compression]'\n")


def test_help_works_without_the_extra() -> None:
    assert run(WITHOUT.format(names=set(extra()), arguments=["compress", "--help"])).returncode == 0
