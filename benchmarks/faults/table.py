"""The result of a run as the table of docs/faults.md: `python -m benchmarks.faults.table` prints it."""

import argparse
import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[1] / "results" / "faults.json"
PAGE = Path(__file__).parents[2] / "docs" / "faults.md"
BEGIN = "<!-- results: python -m benchmarks.faults.table -->\n"
END = "<!-- end -->"


def to_markdown(results: dict[str, Any]) -> str:
    """Every check of every fault as Markdown, with the machine and the commits."""
    commits = sorted({report["commit"] for report in results["faults"].values()})
    lines = [
        f"Measured on {results['machine']}, at commit {', '.join(commits)}.",
        "",
        "| fault | must hold | measured | |",
        "|---|---|---|---|",
    ]
    for name, report in results["faults"].items():
        for check in report["checks"]:
            cells = [name, check["promise"], check["measured"], "ok" if check["holds"] else "**FAILED**"]
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def with_table(page: str, table: str, marker: str = BEGIN) -> str:
    """The page with this table between `marker` and the next end; raises ValueError when it has none."""
    before, begin, rest = page.partition(marker)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError("the page has no markers for the table")
    return before + begin + table + end + after


def main() -> None:
    """Print the table, or write it into the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, default=RESULTS)
    parser.add_argument("--write", action="store_true", help=f"put it into {PAGE.name} instead")
    options = parser.parse_args()
    table = to_markdown(json.loads(options.json.read_text(encoding="utf-8")))
    if options.write:
        PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8"), table), encoding="utf-8")
    else:
        print(table, end="")


if __name__ == "__main__":
    main()
