"""Claims about what people run daily: make's targets, the hooks before a commit, the oldest versions."""

import re
import shlex
import shutil
import subprocess
import tomllib

import pytest
import yaml

from tests.lower_bounds import PYPROJECT, pins
from tests.test_docs import REPOSITORY

MAKEFILE = (REPOSITORY / "Makefile").read_text(encoding="utf-8")


@pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")
def test_make_help_lists_every_target_with_what_it_does() -> None:
    (targets,) = re.findall(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)
    printed = subprocess.run(
        ["make", "--no-print-directory", "help"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout
    listed = dict(line.split(maxsplit=1) for line in printed.splitlines())
    assert sorted(listed) == sorted(targets.split())


def test_a_hook_runs_what_make_check_runs() -> None:
    hooks = yaml.safe_load((REPOSITORY / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"][0]["hooks"]
    (check,) = re.findall(r"^check:.*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)
    programs = [line.split()[0] for line in check.replace("$(BIN)", ".venv/bin").splitlines()]
    assert {hook["entry"].split()[0] for hook in hooks} == set(programs)


def test_a_lower_bound_becomes_a_pin_and_an_upper_bound_does_not() -> None:
    assert pins(["one-name>=0.40,<0.55", "two>=2.9", "three", "four<2", "five[extra]"]) == [
        "one-name==0.40",
        "two==2.9",
    ]


def test_every_requirement_of_the_server_has_a_lower_bound() -> None:
    requirements = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]["dependencies"]
    assert len(pins(requirements)) == len(requirements)


def test_every_tool_of_make_lower_bounds_is_pinned_to_its_oldest_version() -> None:
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    extras = [line for extra in project["optional-dependencies"].values() for line in extra]
    pinned = {pin.partition("==")[0] for pin in pins([*project["dependencies"], *extras])}
    (tools,) = re.findall(r"--editable '\.\[[\w,]+\]' (.*)$", MAKEFILE, re.MULTILINE)
    assert {tool.partition("[")[0] for tool in shlex.split(tools)} <= pinned
