"""Claims that the documentation makes, checked; ``python -m tests.test_docs`` writes the generated parts anew."""

from __future__ import annotations

import json
import re
from pathlib import Path

from ladabert_compress.recipe import Recipe, load_recipe, recipe_fields

REPOSITORY = Path(__file__).parents[1]
COMPRESSION = REPOSITORY / "docs" / "compression.md"
MARKERS = re.compile(r"(<!-- recipe fields: [^>]*-->\n).*?(<!-- end -->)", re.DOTALL)


def recipe_table() -> str:
    """Every recipe field with its default and description, as Markdown."""
    recipes = {path.stem: load_recipe(path) for path in sorted((REPOSITORY / "recipes").glob("*.toml"))}
    lines = [f"| key | {' | '.join(recipes)} | is |", "|---|" + "---|" * (len(recipes) + 1)]
    for name, _, description in recipe_fields():
        values = " | ".join(str(_value(recipe, name)) for recipe in recipes.values())
        lines.append(f"| `{name}` | {values} | {description} |")
    return "\n".join(lines) + "\n"


def _value(recipe: Recipe, name: str) -> object:
    section, _, key = name.partition(".")
    return recipe.to_dict()[section][key]


def generated(text: str) -> str:
    """The page with its generated table as it should be."""
    return MARKERS.sub(lambda match: match[1] + recipe_table() + match[2], text)


def test_the_recipe_table_says_what_the_recipes_say() -> None:
    text = COMPRESSION.read_text(encoding="utf-8")
    assert MARKERS.search(text)
    assert text == generated(text), "run: python -m tests.test_docs"


def test_the_readme_is_short_and_its_links_lead_somewhere() -> None:
    pages = [REPOSITORY / "README.md", REPOSITORY / "CHANGELOG.md", *(REPOSITORY / "docs").glob("*.md")]
    assert len(pages[0].read_text(encoding="utf-8").splitlines()) <= 200
    for page in pages:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_bundled_model_reached_its_ratio_has_a_self_test_and_stays_small() -> None:
    folders = [path.parent for path in (REPOSITORY / "models").glob("*/manifest.json")]
    assert folders
    for folder in folders:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        assert manifest["default_file"] in manifest["self_test"]["logits"]
        made = manifest["compression"]
        assert abs(made["reached_ratio"] / made["requested_ratio"] - 1) < 0.02
    total = sum(path.stat().st_size for folder in folders for path in folder.iterdir())
    assert total < 40e6


if __name__ == "__main__":
    COMPRESSION.write_text(generated(COMPRESSION.read_text(encoding="utf-8")), encoding="utf-8")
