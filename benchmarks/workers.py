"""How much faster N worker processes are than one: the same load on servers that take turns, in one run.

python -m benchmarks.workers [--workers 2] [--rounds 5] [--seconds 4] [--json F] [--write]

Each round measures every server once, in turn, since a machine's speed drifts; a ratio is taken within a round. The
load generator shares the cores with the server, so that a machine whose cores all serve reaches less than N.
"""

import argparse
import asyncio
import contextlib
import json
from pathlib import Path
from typing import Any

from benchmarks.faults.figures import median
from benchmarks.faults.load import Answers, closed_loop
from benchmarks.faults.server import ServerProcess, started
from benchmarks.faults.table import with_table
from benchmarks.faults.texts import Texts
from benchmarks.origin import commit
from compression.machine import machine_name
from service.cores import available_cores

RESULTS = Path(__file__).parent / "results" / "workers.json"
PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
BEGIN = "<!-- workers: python -m benchmarks.workers --write -->\n"
CALLERS = 32
WARM_UP_S = 1.0


async def measure(models: Path, workers: int, rounds: int, seconds: float) -> dict[str, Any]:
    """Return requests/s and p99 of each server in each round."""
    # Name, worker processes, runners in each.
    shapes = (
        ("1 worker, 1 runner", 1, 1),
        (f"{workers} workers, 1 runner each", workers, 1),
        (f"1 worker, {workers} runners", 1, workers),
    )
    points: dict[str, list[dict[str, float]]] = {name: [] for name, _, _ in shapes}
    async with contextlib.AsyncExitStack() as stack:
        servers: dict[str, ServerProcess] = {}
        for name, processes, runners in shapes:
            settings = {"runners": runners, "max_queue_ms": 60000}  # on a slow machine, too, everybody is served
            servers[name] = await stack.enter_async_context(started(models, settings, processes))
            await closed_loop(servers[name].port, Texts().short(), CALLERS, WARM_UP_S)
        for _ in range(rounds):
            for name, server in servers.items():
                answers = await closed_loop(server.port, Texts().short(), CALLERS, seconds)
                points[name].append(_point(answers))
    return {
        "machine": machine_name(),
        "cores": available_cores(),
        "commit": commit(),
        "callers": CALLERS,
        "seconds": seconds,
        "points": points,
    }


def _point(answers: Answers) -> dict[str, float]:
    return {
        "requests_per_s": round(answers.rate, 1),
        "p99_ms": round(answers.percentile_s(0.99) * 1000, 2),
        "errors": len(answers.all) - len(answers.of(200)),
    }


def to_markdown(results: dict[str, Any]) -> str:
    """Each server's medians and its ratio to the first within each round, as Markdown."""
    first = next(iter(results["points"].values()))
    lines = [
        f"Measured on {results['machine']}, {results['cores']} of them for the server and the load, at commit "
        f"{results['commit']}: {len(first)} rounds of {results['seconds']:g} s, {results['callers']} callers.",
        "",
        "| server | requests/s | p99 ms | over the first (lowest to highest round) | errors |",
        "|---|---|---|---|---|",
    ]
    for name, points in results["points"].items():
        ratios = [point["requests_per_s"] / one["requests_per_s"] for point, one in zip(points, first, strict=True)]
        lines.append(
            f"| {name} | {median(point['requests_per_s'] for point in points):,.0f} | "
            f"{median(point['p99_ms'] for point in points):.1f} | "
            f"**{median(ratios):.2f}** ({min(ratios):.2f} to {max(ratios):.2f}) | "
            f"{sum(point['errors'] for point in points):g} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print the table, and keep it where asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, default=Path("models"), help="the servers' artefacts")
    parser.add_argument("--workers", type=int, default=2, help="how many against one (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each point (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument("--write", action="store_true", help=f"keep them in results/, and the table in {PAGE.name}")
    options = parser.parse_args()
    results = asyncio.run(measure(options.models, options.workers, options.rounds, options.seconds))
    table = to_markdown(results)
    print(table, end="")
    text = json.dumps(results, indent=2) + "\n"
    if options.json is not None:
        options.json.write_text(text, encoding="utf-8")
    if options.write:
        RESULTS.write_text(text, encoding="utf-8")
        PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8"), table, BEGIN), encoding="utf-8")


if __name__ == "__main__":
    main()
