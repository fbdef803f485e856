"""Does faults to a real server and tells which promises hold; exits 1 when one does not.

python -m benchmarks.faults [NAME…] --models models [--quick | --seconds S] [--json F]
"""

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from benchmarks.faults import (
    connections,
    deadlines,
    failing_runs,
    hang_up,
    overload,
    scrapes,
    sigkill,
    sigterm,
    sizes,
    soak,
)
from benchmarks.faults.report import Options, Report
from compression.machine import machine_name

FAULTS: dict[str, Callable[[Options], Coroutine[None, None, Report]]] = {
    "overload": overload.measure,
    "hang-up": hang_up.measure,
    "deadlines": deadlines.measure,
    "failing-runs": failing_runs.measure,
    "sigterm": sigterm.measure,
    "sigkill": sigkill.measure,
    "connections": connections.measure,
    "churn": connections.measure_churn,
    "soak": soak.measure,
    "sizes": sizes.measure,
    "metrics": scrapes.measure,
}


def main() -> int:
    """Run the named faults one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", metavar="NAME", nargs="*", choices=[[], *FAULTS], help=", ".join(FAULTS))
    parser.add_argument("--models", type=Path, default=Path("models"), help="the server's artefacts")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--quick", action="store_true", help="15 s of overload instead of 60, 5 minutes of soak, not 60")
    kind.add_argument("--seconds", type=float, help="seconds of load in the scripts that load for some time")
    parser.add_argument("--json", type=Path, help="where to write the figures; other faults' ones in it are kept")
    arguments = parser.parse_args()
    options = Options(arguments.models, arguments.seconds, arguments.quick)

    reports: dict[str, Report] = {}
    for name in arguments.names or FAULTS:
        began = time.perf_counter()
        try:
            reports[name] = asyncio.run(FAULTS[name](options))
        except Exception as error:  # the other faults are still worth knowing
            reports[name] = Report()
            reports[name].check("the script ends", f"{type(error).__name__}: {error}", False)
        print(f"\n{name} ({time.perf_counter() - began:.0f} s)")
        for check in reports[name].checks:
            print(f"  {'ok    ' if check.holds else 'FAILED'}  {check.promise}: {check.measured}")
        sys.stdout.flush()
        if arguments.json is not None:
            _write(arguments.json, name, reports[name])
    broken = [name for name, report in reports.items() if not report.holds]
    print(f"\n{len(reports) - len(broken)} of {len(reports)} hold" + (f"; not: {', '.join(broken)}" if broken else ""))
    return 1 if broken else 0


def _write(path: Path, name: str, report: Report) -> None:
    results: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"faults": {}}
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    found = results["faults"] | {name: {"commit": commit, **report.to_dict()}}
    results = {"machine": machine_name(), "faults": {name: found[name] for name in FAULTS if name in found}}
    path.write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
