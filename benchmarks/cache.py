"""What a cache of answers is worth where texts repeat, and what it costs where none does: servers with and without it.

python -m benchmarks cache [--rounds 9] [--seconds 4] [--quick] [--write]

Each round measures both servers on both loads, in turn; a ratio is taken within a round. On the Zipf load the k-th of
10,000 texts comes with a frequency of 1/k, on the other no text comes twice. A cache is warm after the first round.
"""

import argparse
import asyncio
import itertools
import random
import statistics
from collections.abc import Iterator
from pathlib import Path

from benchmarks.harness.client import classify
from benchmarks.harness.load import closed_loop
from benchmarks.harness.pages import table
from benchmarks.harness.results import Results, origin
from benchmarks.harness.servers import our_service
from benchmarks.harness.statistics import turns
from benchmarks.harness.texts import Texts

MODEL = "sst2-latency-x4.7"  # the fastest: of its answers, looking up takes the largest share
DISTINCT = 10_000
CACHE_MIB = 64
CALLERS = 32
WARM_UP_S = 1.0
AHEAD = 50_000  # requests made before each point: making them takes the machine's time from the server
SERVERS = ("without", "with")
LOADS = {"Zipf": "exponent 1, 10,000 texts", "no repeats": "each text once"}
LEAST_RATIOS = {"Zipf": 2.0, "no repeats": 0.98}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what the command is told."""
    parser.add_argument("--models", type=Path, default=Path("models"), help="the servers' artefacts")
    parser.add_argument("--rounds", type=int, default=9, help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each point (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="two rounds of one second")


def measure(options: argparse.Namespace) -> Results:
    """Measure requests/s of each server on each load in each round."""
    return asyncio.run(_measure(options))


async def _measure(options: argparse.Namespace) -> Results:
    rounds, seconds = (2, 1.0) if options.quick else (options.rounds, options.seconds)
    results = Results("cache", origin(), {"seconds": seconds, "model": MODEL, "mib": CACHE_MIB, "callers": CALLERS})
    settings = {"default_model": MODEL, "max_queue_ms": 60000}
    supply = {name: {"Zipf": zipf(seed), "no repeats": new_texts(seed)} for seed, name in enumerate(SERVERS)}
    async with (
        our_service(options.models, settings) as plain,
        our_service(options.models, {**settings, "cache_mib": CACHE_MIB}) as cached,
    ):
        ports = dict(zip(SERVERS, (plain.port, cached.port), strict=True))
        for load in LOADS:
            for name in SERVERS:  # fills the cache, too
                await closed_loop(ports[name], _ahead(supply[name][load]), CALLERS, WARM_UP_S + seconds)
            for number, name in turns(rounds, SERVERS):
                answers = await closed_loop(ports[name], _ahead(supply[name][load]), CALLERS, seconds)
                figures = {"requests_per_s": answers.rate, "p99_ms": 1000 * answers.percentile_s(99)}
                results.add("points", load=load, cache=name, round=number, **figures, errors=answers.failed)
    return results


def zipf(seed: int) -> Iterator[bytes]:
    """Return requests of one text each, of which the k-th is k times as rare as the first."""
    requests = [classify(text) for text in Texts().texts(DISTINCT, 5, 30)]
    cumulative = list(itertools.accumulate(1 / rank for rank in range(1, DISTINCT + 1)))
    source = random.Random(seed)
    while True:
        yield from source.choices(requests, cum_weights=cumulative, k=1000)


def new_texts(seed: int) -> Iterator[bytes]:
    """Return requests of one text each, none of which comes twice."""
    texts = Texts(seed)
    for number in itertools.count():
        yield classify(f"{texts.text(5, 30)} {number}")


def _ahead(requests: Iterator[bytes]) -> Iterator[bytes]:
    return iter(list(itertools.islice(requests, AHEAD)))


def sections(results: Results) -> dict[str, str]:
    """Return the ratio within the rounds, by load."""
    lines = []
    for load in results.names("points", "load"):
        plain, cached = (results.values("points", "requests_per_s", load=load, cache=name) for name in SERVERS)
        ratios = _ratios(results, load)
        over = f"**{statistics.median(ratios):.2f}** ({min(ratios):.2f} to {max(ratios):.2f})"
        what = f"{load}: {LOADS[load]}"
        lines.append((what, f"{statistics.median(plain):,.0f}", f"{statistics.median(cached):,.0f}", over))
    head = ["load", "requests/s without", "with", "ratio (lowest to highest round)"]
    model, callers, seconds, mib = (results.settings[name] for name in ("model", "callers", "seconds", "mib"))
    told = (
        f"Model `{model}`, {callers} callers, {len(ratios)} rounds of {seconds:g} s, "
        f"`LADABERT_CACHE_MIB={mib}`. Measured by {results.told()}, on {results.origin['machine']}.\n\n"
    )
    return {"cache": told + table(head, lines)}


def failures(results: Results) -> list[str]:
    """Return which promise is broken."""
    broken = [f"{row['load']}: {row['errors']} requests failed" for row in results.rows("points") if row["errors"]]
    for load, least in LEAST_RATIOS.items():
        ratio = statistics.median(_ratios(results, load))
        if ratio < least:
            broken.append(f"{load}: {ratio:.2f} times the throughput, not {least:g}")
    return broken


def _ratios(results: Results, load: str) -> list[float]:
    plain, cached = (results.values("points", "requests_per_s", load=load, cache=name) for name in SERVERS)
    return [after / before for before, after in zip(plain, cached, strict=True)]
