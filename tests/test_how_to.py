"""What the how-to pages, the tutorial and the README tell people to type: commands, options, settings and metrics."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

import pytest

from benchmarks.__main__ import MEASURES
from ladabert_compress.cli.main import build_parser
from ladabert_compress.recipe import bundled_recipes
from ladabert_serve.observability.kinds import KINDS
from ladabert_serve.settings import ENV_PREFIX, Settings
from tests.test_docs import REPOSITORY

PAGES = {
    page.relative_to(REPOSITORY).as_posix(): page.read_text(encoding="utf-8")
    for page in (REPOSITORY / "README.md", REPOSITORY / "docs" / "tutorial.md", REPOSITORY / "docs" / "README.md")
} | {
    f"docs/how-to/{name}.md": (REPOSITORY / "docs" / "how-to" / f"{name}.md").read_text(encoding="utf-8")
    for name in (
        "adopt",
        "cascade",
        "choose-a-recipe",
        "tune-for-latency",
        "tune-for-throughput",
        "operate",
        "secure",
        "troubleshoot",
    )
}
SETTINGS = {name.upper() for name in Settings.model_fields}
OPTIONS = {"--" + name.replace("_", "-") for name in Settings.model_fields}
SERVE_COMMANDS = {"adopt", "check", "health", "keys"}
OPTIONS_OF_COMMANDS = {"--url", "--name", "--scope", "--out", "--task", "--precision", "--max-length"}
PACKAGES = {"ladabert_serve", "ladabert_compress"}


def lines_of_code(text: str) -> Iterator[str]:
    """The lines of the page's code blocks, those that go on after a backslash joined, without their prompt."""
    for block in re.findall(r"^ *```\w*\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE):
        for line in re.sub(r"\\\n *", " ", block).splitlines():
            yield line.strip().removeprefix("$ ")


def commands(program: str) -> list[tuple[str, str]]:
    """(page, command) of every command of the program in the pages' code blocks."""
    return [
        (page, line) for page, text in PAGES.items() for line in lines_of_code(text) if line.startswith(f"{program} ")
    ]


@pytest.mark.parametrize(("page", "command"), commands("ladabert-compress"))
def test_a_command_of_compress_is_understood(page: str, command: str) -> None:
    options = build_parser().parse_args(shlex.split(command)[1:])
    recipe = getattr(options, "recipe", None)
    assert recipe is None or recipe in bundled_recipes()


@pytest.mark.parametrize(("page", "command"), commands("ladabert-serve"))
def test_a_command_of_the_server_has_options_that_are_there(page: str, command: str) -> None:
    words = shlex.split(command)[1:]
    assert {word for word in words if word.startswith("--")} <= OPTIONS | OPTIONS_OF_COMMANDS
    assert words[0].startswith("--") or words[0] in SERVE_COMMANDS


@pytest.mark.parametrize("page", PAGES)
def test_a_page_names_settings_and_metrics_that_are_there(page: str) -> None:
    text = PAGES[page]
    assert set(re.findall(rf"{ENV_PREFIX}([A-Z_]+)", text)) <= SETTINGS
    if page.startswith("docs/how-to/"):  # whose tables leave the prefix out
        names = {name.removeprefix(ENV_PREFIX) for name in re.findall(r"`([A-Z][A-Z_]{4,})`", text)}
        assert names - {""} <= SETTINGS
    metrics = set(re.findall(r"\bladabert_[a-z_]+", text)) - PACKAGES
    assert {re.sub(r"_(bucket|count|sum)$", "", name) for name in metrics} <= KINDS.keys()


def test_the_pages_have_commands_to_check() -> None:
    assert len(commands("ladabert-compress")) >= 8
    assert len(commands("ladabert-serve")) >= 3


def test_the_index_names_benchmarks_that_are_there() -> None:
    named = set(re.findall(r"python -m benchmarks ([a-z-]+)", PAGES["docs/README.md"])) - {"pages"}
    assert named
    assert named <= MEASURES.keys()
