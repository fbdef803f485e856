"""How fast this commit serves over an earlier one: two servers that take turns, in one run.

python -m benchmarks commits --before REVISION [--models NAME,NAME] [--rounds 5] [--seconds 4] [--write]

The earlier commit is checked out into a temporary folder. Its default model is named in its own way, where the names
have changed since: NAME=OLD_NAME.
"""

import argparse
import asyncio
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from benchmarks.harness.load import closed_loop
from benchmarks.harness.pages import table
from benchmarks.harness.results import REPOSITORY, Results, origin
from benchmarks.harness.servers import READY, Server, started
from benchmarks.harness.statistics import turns
from benchmarks.harness.texts import Texts

CALLERS = (1, 32, 64)
WARM_UP_S = 1.0
PATIENT_MS = "60000"  # of the queue: nobody is refused


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what the command is told."""
    parser.add_argument("--before", required=True, metavar="REVISION", help="the earlier commit")
    parser.add_argument("--models", default="sst2-latency-x4.7,sst2-x10", help="NAME or NAME=OLD_NAME, comma-separated")
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each point (default: %(default)s)")


def measure(options: argparse.Namespace) -> Results:
    """Measure requests/s, p50 and p99 of both commits in each round."""
    return asyncio.run(_measure(options))


async def _measure(options: argparse.Namespace) -> Results:
    results = Results("commits", origin(), {"before": options.before, "seconds": options.seconds})
    with tempfile.TemporaryDirectory() as temporary:
        earlier = Path(temporary) / "before"
        git = ["git", "-C", str(REPOSITORY), "worktree"]
        subprocess.run([*git, "add", "--detach", "--quiet", str(earlier), options.before], check=True)
        try:
            for entry in options.models.split(","):
                name, _, old_name = entry.partition("=")
                async with _serving(REPOSITORY, name) as after, _serving(earlier, old_name or name) as before:
                    await _compare(results, name, {"before": before.port, "after": after.port}, options)
        finally:
            subprocess.run([*git, "remove", "--force", str(earlier)], check=True)
    return results


async def _compare(results: Results, model: str, ports: dict[str, int], options: argparse.Namespace) -> None:
    for port in ports.values():
        await closed_loop(port, Texts().short(), 1, WARM_UP_S)
    for callers in CALLERS:
        for number, commit in turns(options.rounds, list(ports)):
            answers = await closed_loop(ports[commit], Texts().short(), callers, options.seconds)
            times = {f"p{percent}_ms": 1000 * answers.percentile_s(percent) for percent in (50, 99)}
            row = {"model": model, "callers": callers, "commit": commit, "round": number}
            results.add("points", **row, requests_per_s=answers.rate, **times, errors=answers.failed)


@contextlib.asynccontextmanager
async def _serving(checkout: Path, model: str) -> AsyncIterator[Server]:
    """Serve a checkout's own models with its own code."""
    is_new = (checkout / "service" / "ladabert_serve").is_dir()
    module, root = ("ladabert_serve", checkout / "service") if is_new else ("service", checkout)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LADABERT_")}
    environment |= {"PYTHONPATH": str(root), "LADABERT_MAX_QUEUE_MS": PATIENT_MS, "LADABERT_DEFAULT_MODEL": model}

    def command(port: int) -> list[str]:
        return [sys.executable, "-m", module, "--models", str(checkout / "models"), "--port", str(port)]

    async with started(str(checkout), command, READY, environment) as server:
        yield server


def sections(results: Results) -> dict[str, str]:
    """Return the medians of both commits, and the ratio or difference within the rounds."""
    lines = []
    for model in results.names("points", "model"):
        for callers in CALLERS:
            at = {"model": model, "callers": callers}
            rates, p50s = (
                [results.values("points", column, commit=commit, **at) for commit in ("before", "after")]
                for column in ("requests_per_s", "p50_ms")
            )
            ratios = [after / before for before, after in zip(*rates, strict=True)]
            over = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
            requests_per_s, p50_ms = _from_to(rates, "{:,.0f}"), _from_to(p50s, "{:.2f}")
            lines.append((f"`{model}`", callers, requests_per_s, over, p50_ms))
    about = results.origin
    told = (
        f"Commit {results.settings['before']} (before) and {about['commit']} (after) in turns on {about['machine']}, "
        f"{about['cores']} cores for server and load, {results.settings['seconds']:g} s a point.\n\n"
    )
    head = ["model", "callers", "requests/s", "after over before (lowest to highest round)", "p50 ms"]
    return {"commits": told + table(head, lines)}


def _from_to(figures: list[list[float]], form: str) -> str:
    return " → ".join(form.format(statistics.median(found)) for found in figures)
