"""Ray Serve with two replicas of one core, two workers of our own, and one worker with two runners, in one run.

python -m benchmarks ray [--model models/NAME] [--rounds 5] [--seconds 4] [--quick] [--write]

All serve the same artefact with the same engine, so the difference is what stands before it. Each is started, measured
and ended in turn within every round, since Ray's own processes use the cores even while nobody asks. Needs the extra
`ray`.
"""

import argparse
import asyncio
import contextlib
import os
import secrets
import signal
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import yaml

from benchmarks.harness.load import closed_loop
from benchmarks.harness.pages import table
from benchmarks.harness.results import REPOSITORY, Results, origin
from benchmarks.harness.servers import READY, Server, our_service, started
from benchmarks.harness.statistics import turns
from benchmarks.harness.texts import Texts

CALLERS = 32
WARM_UP_S = 1.0
REPLICAS = 2
REPLICA = "ray::ServeReplica"
CONFIGURATION = REPOSITORY / "deploy/ray/serve.yaml"
RAY, WORKERS, RUNNERS = "Ray Serve, 2 replicas of one core", "2 workers, 1 runner each", "1 worker, 2 runners"
MAX_QUEUE_MS = 60000  # on a slow machine, too, everybody is served


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what the command is told."""
    parser.add_argument("--model", type=Path, default=Path("models/sst2-x10"), help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each point (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="one round of one second")


def measure(options: argparse.Namespace) -> Results:
    """Measure rate, p99, CPU time and memory of each server in each round."""
    return asyncio.run(_measure(options))


async def _measure(options: argparse.Namespace) -> Results:
    rounds, seconds = (1, 1.0) if options.quick else (options.rounds, options.seconds)
    settings = {"callers": CALLERS, "seconds": seconds, "model": options.model.name}
    results = Results("ray", origin(), settings)
    with tempfile.TemporaryDirectory(prefix="ladabert-ray-") as folder:
        models = Path(folder) / "models"
        models.mkdir()
        _copy(options.model, models / options.model.name)
        servers = {
            RAY: lambda: ray_service(models, Path(folder)),
            WORKERS: lambda: our_service(models, {"runners": 1, "max_queue_ms": MAX_QUEUE_MS}, 2),
            RUNNERS: lambda: our_service(models, {"runners": 2, "max_queue_ms": MAX_QUEUE_MS}),
        }
        for number, name in turns(rounds, list(servers)):
            async with servers[name]() as server:
                await closed_loop(server.port, Texts().short(), CALLERS, WARM_UP_S)
                answers = await closed_loop(
                    server.port, Texts().short(), CALLERS, seconds, probe=lambda: (server.cpu_s(),)
                )
                results.add("points", server=name, round=number, **_figures(answers, server))
    results.tables["points"].sort(key=lambda row: list(servers).index(row["server"]))
    return results


def _copy(source: Path, target: Path) -> None:
    target.mkdir()
    for path in source.iterdir():
        (target / path.name).write_bytes(path.read_bytes())


def _figures(answers: Any, server: Server) -> dict[str, float]:
    return {
        "requests_per_s": answers.rate,
        "p50_ms": 1000 * answers.percentile_s(50),
        "p99_ms": 1000 * answers.percentile_s(99),
        "cpu_ms": 1000 * answers.spent[0] / max(1, len(answers.all)),
        "peak_mib": server.peak_mib(),
        "ready_s": server.ready_s,
        "errors": answers.failed,
    }


@contextlib.asynccontextmanager
async def ray_service(models: Path, folder: Path) -> AsyncIterator[Server]:
    """Start the shipped configuration on a local Ray with a fixed number of replicas, and end it at the exit."""
    config = yaml.safe_load(CONFIGURATION.read_text(encoding="utf-8"))
    (application,) = config["applications"]
    application["args"] = {"models": str(models), "max_queue_ms": MAX_QUEUE_MS}
    scaling = application["deployments"][0]["autoscaling_config"]
    scaling["min_replicas"] = scaling["max_replicas"] = REPLICAS
    path = folder / "serve.yaml"

    def command(port: int) -> list[str]:
        config["http_options"] |= {"host": "127.0.0.1", "port": port}
        path.write_text(yaml.safe_dump(config), encoding="utf-8")
        return [sys.executable, "-m", "ray.serve.scripts", "run", str(path)]

    environment = os.environ | {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    async with started(RAY, command, READY, environment) as server:
        while sum(" ".join(one.cmdline()).startswith(REPLICA) for one in server.family) < REPLICAS:
            await asyncio.sleep(0.1)
        yield server
        await server.stop(signal.SIGINT)


def sections(results: Results) -> dict[str, str]:
    """Return each server's medians and its ratio to Ray's within each round."""
    first = results.values("points", "requests_per_s", server=RAY)
    lines = []
    for name in results.names("points", "server"):
        rates = results.values("points", "requests_per_s", server=name)
        ratios = [rate / one for rate, one in zip(rates, first, strict=True)]

        def median(column: str, server: str = name) -> float:
            found = results.median("points", column, server=server)
            assert found is not None
            return found

        lines.append(
            (
                name,
                f"{median('requests_per_s'):,.0f}",
                f"**{statistics.median(ratios):.2f}** ({min(ratios):.2f} to {max(ratios):.2f})",
                f"{median('p50_ms'):.1f} / {median('p99_ms'):.1f}",
                f"{median('cpu_ms'):.2f}",
                f"{median('peak_mib'):,.0f}",
                f"{median('ready_s'):.1f}",
            )
        )
    about, settings = results.origin, results.settings
    errors = sum(results.values("points", "errors"))
    told = (
        f"`{settings['model']}` on {about['machine']}, which the load generator shares; commit {about['commit']}: "
        f"{len(first)} rounds of {settings['seconds']:g} s, {settings['callers']} callers, {errors} errors.\n\n"
    )
    head = [
        "server",
        "requests/s",
        "over Ray (lowest to highest round)",
        "p50 / p99 ms",
        "CPU-ms a request",
        "peak MiB",
    ]
    return {"ray": told + table([*head, "ready after s"], lines)}
