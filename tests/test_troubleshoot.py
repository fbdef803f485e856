"""Every message that the troubleshooting page quotes is one that the code still says."""

from __future__ import annotations

import ast
import re

import pytest

from tests.test_docs import REPOSITORY

PAGE = (REPOSITORY / "docs" / "how-to" / "troubleshoot.md").read_text(encoding="utf-8")
MESSAGES_END = "## Answers are not what you expect"  # what follows are symptoms in words
GAP = "…"


def quoted() -> list[str]:
    """What stands in backquotes in the first cell of each row of the tables of messages."""
    rows = [line for line in PAGE.partition(MESSAGES_END)[0].splitlines() if line.startswith("| ")]
    return [message for row in rows for message in re.findall(r"`([^`]+)`", row.split(" | ")[0])]


def said() -> str:
    """Every string in the code of both halves, with a gap where a value is filled in, one a line."""
    strings = []
    for half in ("service", "compression"):
        for path in sorted((REPOSITORY / half).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    parts = (part.value if isinstance(part, ast.Constant) else GAP for part in node.values)
                    strings.append("".join(map(str, parts)))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    strings.append(re.sub(r"%[a-z]", GAP, node.value))
    return "\n".join(strings)


@pytest.fixture(scope="module")
def code() -> str:
    return said()


@pytest.mark.parametrize("message", quoted())
def test_the_code_says_a_message_of_the_page(message: str, code: str) -> None:
    parts = [re.escape(part) for part in message.strip(GAP).split(GAP)]
    assert re.search(r"[^\n]*?".join(parts), code), "the code says it otherwise now"


def test_the_page_quotes_messages() -> None:
    assert len(quoted()) > 30
