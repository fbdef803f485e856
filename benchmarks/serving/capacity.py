"""How many cores a rate needs, from the points that `serving` has measured; docs/how-to/capacity.md explains it."""

import itertools
import math

from benchmarks.harness.pages import MISSING, table
from benchmarks.harness.results import Results
from benchmarks.serving.contenders import OURS

LIMITS_MS = (25, 50, 100, 250)  # on p99
RATES = (1_000, 10_000, 1_000_000)  # requests/s
USED = 0.6  # of the measured rate: the rest is for bursts, for slower machines and for what is being replaced
GRAPHS = {"teacher": "teacher, fp32", "student": "student, int8"}


def rate_within(points: list[tuple[float, float]], limit_ms: float) -> float | None:
    """Return the highest rate whose p99 is within the limit, on straight lines between (rate, p99) by concurrency.

    None where even the least busy point is slower.
    """
    if points[0][1] > limit_ms:
        return None
    best = points[0][0]
    for (rate, p99), (next_rate, next_p99) in itertools.pairwise(points):
        if next_p99 > limit_ms:
            return max(best, rate + (next_rate - rate) * (limit_ms - p99) / (next_p99 - p99))
        best = max(best, next_rate)
    return best


def cores_for(rate: float, measured: float, cores: int) -> int:
    """Return the cores for a rate, in whole servers of as many cores as were measured."""
    return cores * math.ceil(rate / (USED * measured))


def sections(results: Results) -> dict[str, str]:
    """Return the table of cores by graph and limit on p99, for single sentences."""
    cores = results.origin["cores"]
    lines = []
    for graph, title in GRAPHS.items():
        points = points_of(results, graph)
        for limit_ms in LIMITS_MS if points else ():
            rate = rate_within(points, limit_ms)
            needed = (MISSING if rate is None else f"{cores_for(each, rate, cores):,}" for each in RATES)
            lines.append((title, f"{limit_ms} ms", MISSING if rate is None else f"{rate:,.0f}", *needed))
    about = results.origin
    told = f"{about['machine']}; planned is {USED:.0%} of the measured rate. Commit {about['commit']}.\n\n"
    head = ["graph", "p99 within", f"requests/s on {cores} cores", *(f"cores for {rate:,}/s" for rate in RATES)]
    return {"capacity": told + table(head, lines)}


def points_of(results: Results, graph: str) -> list[tuple[float, float]]:
    """Return our medians of rate and p99 with single sentences, from the lowest concurrency on."""
    wanted = {"graph": graph, "contender": OURS, "load": "sentence"}
    found = []
    for concurrency in sorted({row["concurrency"] for row in results.rows("points", **wanted)}):
        rate = results.median("points", "requests_per_s", **wanted, concurrency=concurrency)
        p99 = results.median("points", "p99_ms", **wanted, concurrency=concurrency)
        if rate is not None and p99 is not None:
            found.append((rate, p99))
    return found
