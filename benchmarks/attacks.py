"""The page's table of what `make attack` measured; `python -m tests.attacks --json` keeps the figures."""

from benchmarks.harness.pages import MISSING, table
from benchmarks.harness.results import Results, Row


def sections(results: Results) -> dict[str, str]:
    """Return what each attack cost, and whether its claims hold."""
    rows = results.rows("attacks")
    held = sum(not row["not_held"] for row in rows)
    head = ["attack", "answers", "memory, MiB", "longest wait of others", "claims"]
    about = f"{results.told()}, {results.origin['machine']}: {held} of {len(rows)} attacks held.\n\n"
    return {"attacks": about + table(head, map(_line, rows))}


def _line(row: Row) -> list[str]:
    answers = ", ".join(f"{number} × {outcome}" for outcome, number in sorted(row["answers"].items())) or MISSING
    waits = ", ".join(f"{kind} {wait:.0f} ms" for kind, wait in row["waits_ms"].items()) or MISSING
    claims = f"{row['claims']} hold" if not row["not_held"] else f"**not held:** {'; '.join(row['not_held'])}"
    return [f"`{row['attack']}`", answers, f"{row['memory_mib']:+.0f}", waits, claims]
