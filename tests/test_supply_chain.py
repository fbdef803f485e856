"""Claims about what is built from what: hashes of the images' packages, GitHub's workflow, Dependabot."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
LOCKS = sorted(ROOT.glob("docker/requirements*.txt"))
WORKFLOW = ROOT / ".github/workflows/ci.yml"
PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;]+)", re.MULTILINE)
BY_COMMIT = re.compile(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}")


def normal(name: str) -> str:
    """Return a package's name as the index compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(path: Path) -> dict[str, str]:
    return {normal(name): version for name, version in PIN.findall(path.read_text())}


def base_dependencies() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return {normal(re.split(r"[<>=\[]", line)[0]) for line in project["dependencies"]}


def workflow() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(WORKFLOW.read_text())
    return found


def steps() -> list[dict[str, Any]]:
    return [step for job in workflow()["jobs"].values() for step in job["steps"]]


def test_there_is_a_file_of_hashes_for_each_kind_of_image() -> None:
    assert [path.name for path in LOCKS] == ["requirements-cuda.txt", "requirements-openvino.txt", "requirements.txt"]


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_the_images_install_the_versions_that_are_tested(lock: Path) -> None:
    constraints, locked = pins(ROOT / "constraints.txt"), pins(lock)
    wrong = {name for name, version in locked.items() if constraints.get(name, version) != version}
    assert not wrong, "run: make lock"
    unpinned = {name for name in locked if name not in constraints}
    assert all(name.startswith("nvidia-") for name in unpinned), unpinned
    replaced = {"onnxruntime"} if "cuda" in lock.name else set()
    assert base_dependencies() - replaced <= set(locked), "run: make lock"


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_every_package_of_an_image_has_its_hashes(lock: Path) -> None:
    requirements = lock.read_text().replace("\\\n", " ").splitlines()
    packages = [line for line in requirements if line and not line.startswith("#")]
    assert len(packages) == len(pins(lock))
    assert all("--hash=sha256:" in line for line in packages)


@pytest.mark.parametrize(
    ("schema", "file"), [("github-workflows", WORKFLOW), ("dependabot", ROOT / ".github/dependabot.yml")]
)
def test_github_understands_the_file(schema: str, file: Path) -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", str(file)]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_workflow_runs_what_decides_here_and_builds_targets_that_there_are() -> None:
    assert ".ci/run" in [step.get("run") for step in steps()]
    dockerfile = (ROOT / "docker/Dockerfile").read_text()
    for target in workflow()["jobs"]["image"]["strategy"]["matrix"]["target"]:
        assert f" AS {target}\n" in dockerfile


def test_the_workflow_may_only_read_and_takes_others_actions_at_a_commit() -> None:
    assert workflow()["permissions"] == {"contents": "read"}
    used = [step["uses"] for step in steps() if "uses" in step]
    assert used
    assert all(BY_COMMIT.fullmatch(action) for action in used)


def test_every_make_target_of_the_workflow_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = [command.split()[1] for step in steps() if (command := step.get("run", "")).startswith("make ")]
    assert targets
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)
