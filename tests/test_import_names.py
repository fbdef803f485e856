"""Claims about our import names: another package called `compression`, which Python has from 3.14 on, is in no way."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
SCRIPTS: dict[str, str] = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"][
    "scripts"
]


@pytest.mark.parametrize("command", SCRIPTS)
def test_a_command_starts_where_compression_is_another_package(command: str, tmp_path: Path) -> None:
    (tmp_path / "compression").mkdir()
    (tmp_path / "compression" / "__init__.py").write_text("MARKER = 'another compression'\n", encoding="utf-8")
    module, function = SCRIPTS[command].split(":")
    script = (
        "import compression; print(compression.MARKER)\n"
        f"from {module} import {function}\n"
        f"{function}(['--help'])"  # it exits with 0
    )
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=REPOSITORY,  # its folder compression/ comes first on the path, and is no package
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    marker, usage = done.stdout.splitlines()[:2]
    assert marker == "another compression"
    assert usage.startswith(f"usage: {command} ")
