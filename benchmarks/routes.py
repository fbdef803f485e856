"""What the other dialects' routes cost callers of POST /classify: servers with and without them, in one run.

python -m benchmarks routes [--rounds 15] [--seconds 3] [--write]

Each round measures both servers, in turn; a ratio is taken within a round.
"""

import argparse
import asyncio
import statistics
from pathlib import Path

from benchmarks.harness.load import closed_loop
from benchmarks.harness.pages import table
from benchmarks.harness.results import Results, origin
from benchmarks.harness.servers import our_service
from benchmarks.harness.statistics import turns
from benchmarks.harness.texts import Texts

MODEL = "sst2-latency-x4.7"  # the fastest: of its answers, the routes would take the largest share
CALLERS = (1, 32)
WARM_UP_S = 1.0


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what the command is told."""
    parser.add_argument("--models", type=Path, default=Path("models"), help="the servers' artefacts")
    parser.add_argument("--rounds", type=int, default=15, help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each point (default: %(default)s)")


def measure(options: argparse.Namespace) -> Results:
    """Measure requests/s of each server in each round."""
    return asyncio.run(_measure(options))


async def _measure(options: argparse.Namespace) -> Results:
    results = Results("routes", origin(), {"seconds": options.seconds, "model": MODEL})
    settings = {"default_model": MODEL, "max_queue_ms": 60000}
    async with (
        our_service(options.models, settings, module="benchmarks.harness.altered_service lone") as lone,
        our_service(options.models, settings) as whole,
    ):
        ports = {"without": lone.port, "with": whole.port}
        for port in ports.values():
            await closed_loop(port, Texts().short(), max(CALLERS), WARM_UP_S)
        for callers in CALLERS:
            for number, name in turns(options.rounds, list(ports)):
                answers = await closed_loop(ports[name], Texts().short(), callers, options.seconds)
                figures = {"requests_per_s": answers.rate, "errors": answers.failed}
                results.add("points", routes=name, callers=callers, round=number, **figures)
    return results


def sections(results: Results) -> dict[str, str]:
    """Return the ratio within the rounds."""
    lines = []
    for callers in CALLERS:
        lone, whole = (
            results.values("points", "requests_per_s", routes=name, callers=callers) for name in ("without", "with")
        )
        ratios = [after / before for before, after in zip(lone, whole, strict=True)]
        over = f"**{statistics.median(ratios):.2f}** ({min(ratios):.2f} to {max(ratios):.2f})"
        lines.append((callers, f"{statistics.median(lone):,.0f}", f"{statistics.median(whole):,.0f}", over))
    head = ["callers of `POST /classify`", "requests/s alone", "with all routes", "ratio (lowest to highest round)"]
    told = f"Model `{results.settings['model']}`, {len(ratios)} rounds. Measured by {results.told()}, on "
    return {"routes": f"{told}{results.origin['machine']}.\n\n" + table(head, lines)}
