"""Does faults to a real server and measures whether docs/results/faults.md's promises hold; exits 1 when one does not.

python -m benchmarks faults [NAME…] [--models models] [--cascade] [--quick | --seconds S] [--write]

With --json or --write the figures of the faults that are not named stay as they are in the file. Linux only: memory,
threads and sockets are read from /proc.
"""

import argparse
import asyncio
import contextlib
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from benchmarks.faults import callers, cascade, connections, load, runs, scrapes, shadow, signals
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
    "cascade": cascade.cascade,
}
IN_A_CASCADE = ", cascade"  # added to the name of a fault that was done to a cascade


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what the command is told."""
    parser.add_argument("names", metavar="NAME", nargs="*", choices=[[], *FAULTS], help=", ".join(FAULTS))
    parser.add_argument("--models", type=Path, default=Path("models"), help="the server's artefacts")
    parser.add_argument("--cascade", action="store_true", help="do the faults to a cascade of two bundled models")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--quick", action="store_true", help="15 s of overload instead of 60, 5 minutes of soak, not 60")
    kind.add_argument("--seconds", type=float, help="seconds of load in the scripts that load for some time")


def measure(options: argparse.Namespace) -> Results:
    """Do the named faults one after the other; what is there is kept in --json after each."""
    results = Results("faults", origin())
    if options.json is not None and options.json.exists():
        results.tables = Results.load(options.json).tables
    with contextlib.ExitStack() as stack:
        models, model, kind = options.models, None, ""
        if options.cascade:
            models, model, kind = stack.enter_context(cascade.with_cascade(models)), cascade.NAME, IN_A_CASCADE
        first_stage = cascade.STAGES[0] if options.cascade else None
        told = Options(models, options.seconds, options.quick, model, first_stage)
        for name in options.names or FAULTS:
            _do(name, kind, told, results, options.json)
    return results


def _do(name: str, kind: str, told: Options, results: Results, json: Path | None) -> None:
    began = time.perf_counter()
    report = Report()
    try:
        report = asyncio.run(FAULTS[name](told))
    except Exception as error:  # the other faults are still worth knowing
        report.check("the script ends", f"{type(error).__name__}: {error}", False)
    print(f"{name}{kind}: {'ok' if report.holds else 'FAILED'} ({time.perf_counter() - began:.0f} s)", file=sys.stderr)
    keep(results, name + kind, report)
    if json is not None:
        results.save(json)


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
        rows.sort(key=lambda row: list(FAULTS).index(row["fault"].removesuffix(IN_A_CASCADE)))


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
