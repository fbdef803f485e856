"""Does faults to a real server and measures whether docs/results/faults.md's promises hold; exits 1 when one does not.

python -m benchmarks faults [NAME…] [--models models] [--quick | --seconds S] [--write]

With --json or --write the figures of the faults that are not named stay as they are in the file. Linux only: memory,
threads and sockets are read from /proc.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from benchmarks.faults import callers, connections, load, runs, scrapes, shadow, signals
from benchmarks.faults.report import Options, Report
from benchmarks.harness.pages import table
from benchmarks.harness.results import Results, origin

FAULTS: dict[str, Callable[[Options], Coroutine[Any, Any, Report]]] = {
    "overload": load.overload,
    "hang-up": callers.hang_up,
    "deadlines": callers.deadlines,
    "failing-runs": runs.failing_runs,
    "sigterm": signals.sigterm,
    "sigkill": signals.sigkill,
    "connections": connections.connections,
    "churn": connections.churn,
    "soak": load.soak,
    "sizes": load.sizes,
    "metrics": scrapes.metrics,
    "shadow": shadow.shadow,
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what the command is told."""
    parser.add_argument("names", metavar="NAME", nargs="*", choices=[[], *FAULTS], help=", ".join(FAULTS))
    parser.add_argument("--models", type=Path, default=Path("models"), help="the server's artefacts")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--quick", action="store_true", help="15 s of overload instead of 60, 5 minutes of soak, not 60")
    kind.add_argument("--seconds", type=float, help="seconds of load in the scripts that load for some time")


def measure(options: argparse.Namespace) -> Results:
    """Do the named faults one after the other; what is there is kept in --json after each."""
    results = Results("faults", origin())
    if options.json is not None and options.json.exists():
        results.tables = Results.load(options.json).tables
    told = Options(options.models, options.seconds, options.quick)
    for name in options.names or FAULTS:
        began = time.perf_counter()
        report = Report()
        try:
            report = asyncio.run(FAULTS[name](told))
        except Exception as error:  # the other faults are still worth knowing
            report.check("the script ends", f"{type(error).__name__}: {error}", False)
        print(f"{name}: {'ok' if report.holds else 'FAILED'} ({time.perf_counter() - began:.0f} s)", file=sys.stderr)
        keep(results, name, report)
        if options.json is not None:
            results.save(options.json)
    return results


def keep(results: Results, name: str, report: Report) -> None:
    """Put a fault's rows in the place of its old ones; the order is that of `FAULTS`."""
    for rows in results.tables.values():
        rows[:] = [row for row in rows if row["fault"] != name]
    about = {"fault": name, "commit": results.origin["commit"]}
    for check in report.checks:
        results.add("checks", **about, **check)
    for figure, value in report.figures.items():
        results.add("figures", **about, name=figure, value=value)
    for rows in results.tables.values():
        rows.sort(key=lambda row: list(FAULTS).index(row["fault"]))


def sections(results: Results) -> dict[str, str]:
    """Return every check of every fault, with the machine and the commits."""
    commits = ", ".join(sorted(results.names("checks", "commit")))
    rows = (
        (row["fault"], row["promise"], row["measured"], "ok" if row["holds"] else "**FAILED**")
        for row in results.rows("checks")
    )
    about = f"Measured on {results.origin['machine']}, at commit {commits}.\n\n"
    return {"faults": about + table(["fault", "must hold", "measured", ""], rows)}


def failures(results: Results) -> list[str]:
    """Return the promises that do not hold."""
    return [f"{row['fault']}: {row['promise']}: {row['measured']}" for row in results.rows("checks", holds=False)]
