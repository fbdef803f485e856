"""Claims that the documentation makes, checked; ``python -m tests.test_docs`` writes the generated parts anew."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from unittest import mock

import pytest

from benchmarks.harness.pages import MISSING, all_pages, table
from ladabert_compress.artefact.card import CARD_FILE, model_card
from ladabert_compress.cli.main import main as compress_main
from ladabert_compress.recipe import Recipe, bundled_recipes, load_recipe, recipe_fields
from ladabert_serve.settings import ENV_PREFIX, Settings
from tests.attacks.harness.attack import BACK_S, HOLD_UP_MS, LEFT_MIB, MEMORY_MIB, all_attacks

REPOSITORY = Path(__file__).parents[1]
GENERATED = re.compile(r"(<!-- generated: ([^,]+), by python -m tests.test_docs -->\n)(.*?)(<!-- end -->)", re.DOTALL)
COMMANDS = (
    "finetune",
    "plan",
    "compress",
    "export",
    "cascade",
    "evaluate",
    "bench",
    "search",
    "report",
    "pack",
    "fp16",
)
OPTION = re.compile(r"^  (-[^\n]*?)(?:  +(\S.*))?$")
LINK = re.compile(r"\]\(([^)#:\s]*)(?:#([^)]*))?\)")
COLUMNS = 7


def recipes() -> dict[str, Recipe]:
    """Every bundled recipe by name."""
    return {name: load_recipe(name) for name in bundled_recipes()}


def recipe_keys() -> str:
    """Every key of a recipe with its description and the value that all recipes share."""
    rows = [
        [f"`{name}`", values.pop() if len(values := _values(name)) == 1 else "varies", text]
        for name, _, text in recipe_fields()
    ]
    return table(["key", "value", "meaning"], rows)


def recipe_values(*prefixes: str) -> str:
    """The keys that differ between recipes, for those whose names begin so."""
    chosen = {name: recipe for name, recipe in recipes().items() if name.startswith(prefixes)}
    varying = [name for name, _, _ in recipe_fields() if len(_values(name)) > 1]
    rows = [[f"`{name}`", *(_value(recipe, name) for recipe in chosen.values())] for name in varying]
    return table(["key", *chosen], rows)


def _values(name: str) -> set[str]:
    return {_value(recipe, name) for recipe in recipes().values()}


def _value(recipe: Recipe, name: str) -> str:
    section, _, key = name.partition(".")
    return str(recipe.to_dict()[section][key])


def settings_table() -> str:
    """Every setting of the server with its default and description."""
    rows = []
    for name, setting in Settings.model_fields.items():
        default = "unset" if setting.default is None else str(setting.default).lower()
        rows.append([f"`{ENV_PREFIX}{name.upper()}`", default, setting.description])
    return table(["variable", "default", "meaning"], rows)


def options_table(command: str) -> str:
    """Every option of a command as its help describes it, but for the keys of recipes."""
    keys = {"--" + name.partition(".")[2].replace("_", "-") for name, _, _ in recipe_fields()}
    keep = [
        (option, text)
        for option, text in _options(help_of(command))
        if not (command == "compress" and option.split()[0] in keys)
    ]
    return table(["option", "meaning"], [[f"`{option}`", text] for option, text in keep])


def help_of(command: str) -> str:
    """The help of a command, every option's text on one line."""
    told = io.StringIO()
    with (
        mock.patch.dict(os.environ, {"COLUMNS": "10000", "NO_COLOR": "1"}),
        contextlib.redirect_stdout(told),
        pytest.raises(SystemExit),
    ):
        compress_main([command, "--help"])
    return told.getvalue()


def _options(text: str) -> Iterator[tuple[str, str]]:
    option = ""
    for line in text.splitlines():
        if found := OPTION.match(line):
            option, about = found[1], found[2]
        elif option and line.startswith("   "):
            about = line.strip()
        else:
            option = ""
            continue
        if option and about and not option.startswith("-h"):
            yield option, about


def attacks_table() -> str:
    """Every attack, and what it may get, as its file states it."""
    rows = [
        [f"`{name}`", attack.what, ", ".join(sorted(attack.answers)) or MISSING, _milliseconds(attack.answer_ms)]
        for name, attack in sorted(all_attacks().items())
    ]
    return table(["attack", "what it does", "statuses", "answer within"], rows)


def _milliseconds(limit: float | None) -> str:
    return MISSING if limit is None else f"{limit:.0f} ms"


TABLES: Mapping[str, Callable[[], str]] = {
    "settings": settings_table,
    "recipe keys": recipe_keys,
    "best and latency recipes": lambda: recipe_values("best-", "latency-"),
    "paper recipes": lambda: recipe_values("ladabert-"),
    "attacks": attacks_table,
    **{f"options of {command}": functools.partial(options_table, command) for command in COMMANDS},
}


def generated(text: str) -> str:
    """The page with its generated tables as they should be."""
    return GENERATED.sub(lambda match: match[1] + TABLES[match[2]]() + match[4], text)


def documents() -> list[Path]:
    """Every page for people."""
    return [*all_pages(), *(REPOSITORY / name for name in ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"))]


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives a page's headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", all_pages(), ids=lambda page: page.name)
def test_a_generated_table_says_what_the_code_says(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert text == generated(text), "run: python -m tests.test_docs"


def test_every_generated_table_stands_in_one_page() -> None:
    names = [found[2] for page in all_pages() for found in GENERATED.finditer(page.read_text(encoding="utf-8"))]
    assert sorted(names) == sorted(TABLES)


def test_every_command_is_documented() -> None:
    told = io.StringIO()
    with contextlib.redirect_stdout(told), pytest.raises(SystemExit):
        compress_main(["--help"])
    assert re.findall(r"^    (\w+) ", told.getvalue(), re.MULTILINE)
    assert sorted(re.findall(r"^    (\w+) ", told.getvalue(), re.MULTILINE)) == sorted(COMMANDS)


def test_a_command_has_a_line_for_each_of_its_options() -> None:
    named = set(re.findall(r"--[a-z][a-z-]+", re.sub(r"usage:.*?\n\n", "", help_of("search"), flags=re.DOTALL)))
    assert {"--teacher", "--out", "--resume"} <= named
    assert all(f"`{option}" in options_table("search") for option in named - {"--help"})


def test_the_page_of_attacks_says_the_limits_that_all_of_them_have() -> None:
    text = (REPOSITORY / "docs" / "results" / "attacks.md").read_text(encoding="utf-8")
    for limit in (f"{HOLD_UP_MS} ms", f"{MEMORY_MIB} MiB", f"{LEFT_MIB} MiB", f"{BACK_S:.0f} s"):
        assert limit in text.partition("<!-- generated")[0]
    for name, attack in all_attacks().items():
        assert attack.ends or (attack.memory_mib, attack.hold_up_ms) == (MEMORY_MIB, HOLD_UP_MS), name


def test_the_readme_is_short() -> None:
    assert len((REPOSITORY / "README.md").read_text(encoding="utf-8").splitlines()) <= 200


@pytest.mark.parametrize("page", documents(), ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target, anchor in LINK.findall(page.read_text(encoding="utf-8")):
        linked = page.parent / target if target else page
        assert linked.exists(), f"{page.name} links to {target}"
        if anchor and linked.suffix == ".md":
            assert anchor in anchors(linked), f"{page.name} links to {target}#{anchor}"


@pytest.mark.parametrize("page", all_pages(), ids=lambda page: page.name)
def test_a_table_has_at_most_seven_columns(page: Path) -> None:
    for rule in re.findall(r"^ *\|(?:---\|)+$", page.read_text(encoding="utf-8"), re.MULTILINE):
        assert rule.count("---") <= COLUMNS, page.name


def test_every_bundled_model_reached_its_ratio_has_a_self_test_and_a_card_and_stays_small() -> None:
    folders = [path.parent for path in (REPOSITORY / "models").glob("*/manifest.json")]
    assert folders
    for folder in folders:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        assert manifest["default_file"] in manifest["self_test"]["logits"]
        made = manifest["compression"]
        assert abs(made["reached_ratio"] / made["requested_ratio"] - 1) < 0.02
        assert (folder / CARD_FILE).read_text(encoding="utf-8") == model_card(manifest)
    total = sum(path.stat().st_size for folder in folders for path in folder.iterdir())
    assert total < 60e6  # every version stays in each clone


if __name__ == "__main__":
    for document in all_pages():
        document.write_text(generated(document.read_text(encoding="utf-8")), encoding="utf-8")
