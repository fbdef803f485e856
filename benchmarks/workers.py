"""How much faster N worker processes are than one: the same load on servers that take turns, in one run.

python -m benchmarks workers [--workers 2] [--rounds 5] [--seconds 4] [--write]

Each round measures every server once, in turn, since a machine's speed drifts; a ratio is taken within a round. The
load generator shares the cores with the server, so that a machine whose cores all serve reaches less than N.
"""

import argparse
import asyncio
import contextlib
import statistics
from pathlib import Path

from benchmarks.harness.load import closed_loop
from benchmarks.harness.pages import table
from benchmarks.harness.results import Results, origin
from benchmarks.harness.servers import our_service
from benchmarks.harness.statistics import turns
from benchmarks.harness.texts import Texts

CALLERS = 32
WARM_UP_S = 1.0


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what the command is told."""
    parser.add_argument("--models", type=Path, default=Path("models"), help="the servers' artefacts")
    parser.add_argument("--workers", type=int, default=2, help="how many against one (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each point (default: %(default)s)")


def measure(options: argparse.Namespace) -> Results:
    """Measure requests/s and p99 of each server in each round."""
    return asyncio.run(_measure(options))


async def _measure(options: argparse.Namespace) -> Results:
    results = Results("workers", origin(), {"callers": CALLERS, "seconds": options.seconds})
    many = options.workers
    shapes = {  # worker processes, runners in each
        "1 worker, 1 runner": (1, 1),
        f"{many} workers, 1 runner each": (many, 1),
        f"1 worker, {many} runners": (1, many),
    }
    async with contextlib.AsyncExitStack() as stack:
        ports = {}
        for name, (processes, runners) in shapes.items():
            settings = {"runners": runners, "max_queue_ms": 60000}  # on a slow machine, too, everybody is served
            ports[name] = (await stack.enter_async_context(our_service(options.models, settings, processes))).port
            await closed_loop(ports[name], Texts().short(), CALLERS, WARM_UP_S)
        for number, name in turns(options.rounds, list(ports)):
            answers = await closed_loop(ports[name], Texts().short(), CALLERS, options.seconds)
            figures = {"requests_per_s": answers.rate, "p99_ms": 1000 * answers.percentile_s(99)}
            results.add("points", server=name, round=number, **figures, errors=answers.failed)
    results.tables["points"].sort(key=lambda row: list(shapes).index(row["server"]))
    return results


def sections(results: Results) -> dict[str, str]:
    """Return each server's medians and its ratio to the first within each round."""
    names = results.names("points", "server")
    first = results.values("points", "requests_per_s", server=names[0])
    about, settings = results.origin, results.settings
    lines = []
    for name in names:
        rates, p99s, errors = (
            results.values("points", column, server=name) for column in ("requests_per_s", "p99_ms", "errors")
        )
        ratios = [rate / one for rate, one in zip(rates, first, strict=True)]
        over = f"**{statistics.median(ratios):.2f}** ({min(ratios):.2f} to {max(ratios):.2f})"
        lines.append((name, f"{statistics.median(rates):,.0f}", f"{statistics.median(p99s):.1f}", over, sum(errors)))
    told = (
        f"Measured on {about['machine']}, {about['cores']} of them for the server and the load, at commit "
        f"{about['commit']}: {len(first)} rounds of {settings['seconds']:g} s, {settings['callers']} callers.\n\n"
    )
    head = ["server", "requests/s", "p99 ms", "over the first (lowest to highest round)", "errors"]
    return {"workers": told + table(head, lines)}
