"""What a shadow costs callers: the p99 of servers with and without one, at four fifths of what the server can answer.

python -m benchmarks shadow [--rounds 9] [--seconds 10] [--quick] [--write]

Each round measures both servers in turn, with the same requests at the same rate; a ratio is taken within a round.
"""

import argparse
import asyncio
import statistics
from pathlib import Path

from benchmarks.harness.client import ask, get
from benchmarks.harness.load import OpenLoop, closed_loop
from benchmarks.harness.pages import table
from benchmarks.harness.results import Results, origin
from benchmarks.harness.servers import our_service
from benchmarks.harness.statistics import turns
from benchmarks.harness.texts import Texts

MODEL = "sst2-x10"  # at 2,000 requests a second of the fastest, the load itself decides the p99 of two cores
SHADOW = "sst2-x2.5"
RATE = 0.1
LOAD = 0.8
CALLERS = 32
CAPACITY_S = 3.0
CONNECTIONS = 64
SERVERS = ("without", "with")
MOST_RATIO = 1.05


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what the command is told."""
    parser.add_argument("--models", type=Path, default=Path("models"), help="the servers' artefacts")
    parser.add_argument("--shadow", default=SHADOW, help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=9, help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each point (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="two rounds of three seconds")


def measure(options: argparse.Namespace) -> Results:
    """Measure the p99 of each server in each round, and what the shadow compared."""
    return asyncio.run(_measure(options))


async def _measure(options: argparse.Namespace) -> Results:
    rounds, seconds = (2, 3.0) if options.quick else (options.rounds, options.seconds)
    shadow = options.shadow
    results = Results("shadow", origin(), {"seconds": seconds, "model": MODEL, "shadow": shadow, "rate": RATE})
    settings = {"default_model": MODEL, "max_queue_ms": 60000}
    async with (
        our_service(options.models, settings) as plain,
        our_service(options.models, {**settings, "shadow_model": shadow, "shadow_rate": RATE}) as shadowed,
    ):
        ports = dict(zip(SERVERS, (plain.port, shadowed.port), strict=True))
        for number, name in turns(rounds, SERVERS):
            if name == SERVERS[number % 2]:  # the first of the round: a machine's speed drifts
                capacity = (await closed_loop(plain.port, Texts().short(), CALLERS, CAPACITY_S, warm_up_s=0.5)).rate
            before = await _report(shadowed.port)
            load = OpenLoop(ports[name], Texts().short(), LOAD * capacity, seconds)
            await load.send(CONNECTIONS)
            answers = await load.answers()
            after = await _report(shadowed.port)
            while (await _waiting(shadowed.port)) > 0:  # so that it takes no time from the next point
                await asyncio.sleep(0.05)
            figures = {f"{percent}_ms": 1000 * answers.percentile_s(percent) for percent in (50, 99)}
            compared, dropped = (found - earlier for found, earlier in zip(after, before, strict=True))
            results.add(
                "points",
                server=name,
                round=number,
                offered_per_s=LOAD * capacity,
                p50_ms=figures["50_ms"],
                p99_ms=figures["99_ms"],
                compared=compared,
                dropped=dropped,
                errors=answers.failed,
            )
    return results


async def _report(port: int) -> tuple[int, int]:
    """Return how many texts were compared, and dropped, until now."""
    found = (await ask(port, get(f"/models/{MODEL}/shadow"))).json()
    return found["compared"], sum(found["dropped"].values())


async def _waiting(port: int) -> int:
    return int((await ask(port, get(f"/models/{MODEL}/shadow"))).json()["waiting"])


def sections(results: Results) -> dict[str, str]:
    """Return each server's medians, and the ratio within the rounds."""
    lines = []
    for name in SERVERS:
        figures = [
            results.median("points", column, server=name) or 0.0 for column in ("offered_per_s", "p50_ms", "p99_ms")
        ]
        compared, dropped = (sum(results.values("points", column, server=name)) for column in ("compared", "dropped"))
        lines.append((f"{name} a shadow", *(f"{figure:,.1f}" for figure in figures), compared, dropped))
    ratios = _ratios(results)
    model, shadow, rate, seconds = (results.settings[name] for name in ("model", "shadow", "rate", "seconds"))
    told = (
        f"Model `{model}`, shadow `{shadow}`, rate {rate:g}, {len(ratios)} rounds of {seconds:g} s. "
        f"p99 with a shadow over without: **{statistics.median(ratios):.2f}** ({min(ratios):.2f} to "
        f"{max(ratios):.2f} by round). Measured by {results.told()}, on {results.origin['machine']}, which also made "
        "the load.\n\n"
    )
    return {"shadow": told + table(["server", "requests/s offered", "p50 ms", "p99 ms", "compared", "dropped"], lines)}


def failures(results: Results) -> list[str]:
    """Return which promise is broken."""
    broken = [f"{row['server']}: {row['errors']} requests failed" for row in results.rows("points") if row["errors"]]
    ratio = statistics.median(_ratios(results))
    return [*broken, f"p99 with a shadow is {ratio:.2f} times that without"] if ratio > MOST_RATIO else broken


def _ratios(results: Results) -> list[float]:
    plain, shadowed = (results.values("points", "p99_ms", server=name) for name in SERVERS)
    return [after / before for before, after in zip(plain, shadowed, strict=True)]
