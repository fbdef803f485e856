"""Pages that say where things are: every file that they name is there, and holds the names that they give."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.test_docs import REPOSITORY

DOCS = REPOSITORY / "docs"
HALVES = tuple(REPOSITORY / half for half in ("service/ladabert_serve", "compression/ladabert_compress"))
ROW = re.compile(r"^\| [^|]+ \| \[`[^`]+`\]\(\.\./([^)]+\.py)\) \| ([^|]+) \|$", re.MULTILINE)
QUOTED_FILE = re.compile(r"`([\w./-]+\.(?:py|toml))`")
TREE_ENTRY = re.compile(r"^(?P<indent> *)(?P<names>\S+(?:, \S+)*?)  +\S", re.MULTILINE)

TO_CHANGE = (DOCS / "to-change-x-open-y.md").read_text(encoding="utf-8")


def defined(path: Path) -> set[str]:
    """Names of functions, classes, constants and methods (`Class.method` and `method`) of a module."""
    return set(_names(ast.parse(path.read_text(encoding="utf-8")).body, ""))


def _names(body: list[ast.stmt], prefix: str) -> Iterator[str]:
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from {node.name, prefix + node.name}
            if isinstance(node, ast.ClassDef):
                yield from _names(node.body, f"{node.name}.")
        elif isinstance(node, ast.Assign):
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id


@pytest.mark.parametrize(("path", "names"), ROW.findall(TO_CHANGE))
def test_a_file_to_open_has_the_names_to_look_for(path: str, names: str) -> None:
    wanted = re.findall(r"`([^`]+)`", names)
    assert wanted
    assert set(wanted) <= defined(REPOSITORY / path)


def test_every_row_with_a_python_file_is_checked() -> None:
    rows = [line for line in TO_CHANGE.splitlines() if line.count(" | ") == 2 and ".py)" in line]
    assert len(rows) == len(ROW.findall(TO_CHANGE)) > 40


@pytest.mark.parametrize("page", ["architecture.md", "to-change-x-open-y.md", "glossary.md"])
def test_every_file_that_a_page_names_is_there(page: str) -> None:
    files = set(QUOTED_FILE.findall((DOCS / page).read_text(encoding="utf-8")))
    assert files
    roots = (REPOSITORY, *HALVES)
    assert [file for file in files if not any((root / file).is_file() for root in roots)] == []


def test_the_tree_of_the_readme_is_the_tree() -> None:
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    (tree,) = re.findall(r"## The tree\n\n```\n(.*?)```", readme, re.DOTALL)
    parent, named = REPOSITORY, []
    for entry in TREE_ENTRY.finditer(tree):
        names = entry["names"].split(", ")
        if not entry["indent"]:
            parent = REPOSITORY / names[0]
        folder = parent if entry["indent"] else REPOSITORY
        named += [folder / name.rstrip("/") for name in names]
    assert len(named) == len(set(named)) > 20
    assert [path for path in named if not path.exists()] == []
    rooms = {path for half in HALVES for path in half.iterdir() if (path / "__init__.py").is_file()}
    assert rooms <= set(named)
