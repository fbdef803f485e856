"""Sections of pages that code fills: between `<!-- figures: NAME -->` and `<!-- end -->`, in README.md and docs.

A section may stand in any page: whoever moves one moves its two markers and nothing else.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness.results import REPOSITORY

MISSING = "–"
SECTION = re.compile(r"(<!-- figures: (\S+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


class PageError(Exception):
    """A section that no page has, or a marker that no code fills."""


def all_pages() -> list[Path]:
    """Return the pages that may hold sections."""
    return [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]


def filled(text: str, sections: Mapping[str, str]) -> str:
    """Return a page's text with these sections between their markers; other sections stay."""
    return SECTION.sub(lambda found: found[1] + sections.get(found[2], found[3]) + found[4], text)


def sections_in(text: str) -> list[str]:
    """Return the names of a page's sections."""
    return [found[2] for found in SECTION.finditer(text)]


def fill(sections: Mapping[str, str], pages: Iterable[Path], *, write: bool = True) -> list[Path]:
    """Put sections into the pages that have their markers; return the pages that differ from what they held.

    With `write` false nothing is written. Raises PageError, before anything is written, for a section without a page.
    """
    texts = {page: page.read_text(encoding="utf-8") for page in pages}
    absent = sections.keys() - {name for text in texts.values() for name in sections_in(text)}
    if absent:
        raise PageError(f"no page has <!-- figures: {' --> or <!-- figures: '.join(sorted(absent))} -->")
    wrong = {page: new for page, text in texts.items() if (new := filled(text, sections)) != text}
    for page, new in wrong.items() if write else ():
        page.write_text(new, encoding="utf-8")
    return list(wrong)


def table(head: Sequence[Any], rows: Iterable[Sequence[Any]]) -> str:
    """Return a Markdown table, with its last newline."""
    lines = [_line(head), "|" + "---|" * len(head), *map(_line, rows)]
    return "\n".join(lines) + "\n"


def figure(value: float | None) -> str:
    """Return three significant digits, and no fewer than the whole number has; a dash for what was not measured."""
    if value is None:
        return MISSING
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def listed(values: Iterable[float]) -> str:
    """Return numbers with commas between them."""
    return ", ".join(f"{value:g}" for value in values)


def _line(cells: Iterable[Any]) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"
