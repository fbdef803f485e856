"""Compares servers of the same ONNX file with each other and with what the machine can do, in one run.

python -m benchmarks.serving.compare --teacher DIR [--model models/NAME] [--peers FOLDER] [--texts FILE] \
    [--rounds N] [--seconds S] [--quick] [--json F] [--plot F]

Contenders take turns at every point of every round; whoever is not measured is stopped by SIGSTOP.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import os
import platform
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import FrameType
from typing import Any

from benchmarks.serving.contenders import LIMIT, MODULES_FOLDER, contenders, ours_on_openvino, pipeline, timed_service
from benchmarks.serving.environments import python_of
from benchmarks.serving.graphs import Graph, student_graph, teacher_graph
from benchmarks.serving.limit import InProcess
from benchmarks.serving.measures import Pace, Texts, measure_load, measure_ours_alone
from benchmarks.serving.plot import plot
from benchmarks.serving.results import Point, Results
from benchmarks.serving.servers import Server
from benchmarks.serving.table import markdown
from benchmarks.serving.texts import made_up_mix, made_up_sentences, read_texts, shuffled
from compression.machine import processor_name
from service.artefact import SCHEMA_FILE

Level = tuple[str, int]  # a load and its concurrency
LEVELS: dict[Level, tuple[str, ...]] = {  # and the graphs that are measured at each
    **{("sentence", clients): ("teacher", "student") for clients in (1, 8, 32, 64)},
    **{("mixed", clients): ("teacher",) for clients in (1, 8, 64)},
    ("mixed", 32): ("teacher", "student"),
}
QUICK_LEVELS: dict[Level, tuple[str, ...]] = {
    **{("sentence", clients): ("teacher", "student") for clients in (1, 32, 64)},
    ("mixed", 32): ("teacher",),
}
LIMIT_FROM = 32  # clients; with fewer the limit is nothing to compare with
SENTENCES, MIX = 1024, 128  # texts
TRIED = 256  # texts on which the limit finds its batch size
CHECKED = 16  # texts that everyone must give the same label


@dataclass(frozen=True, slots=True)
class Setup:
    """What is measured for one graph."""

    graph: Graph
    limit: InProcess
    texts: Texts
    servers: Sequence[Server]  # who is compared; ours first
    timed: Server


def main() -> None:
    options = _parser().parse_args()
    rounds, pace = (1, Pace(1.5, 0.3)) if options.quick else (options.rounds, Pace(options.seconds, 0.5))
    levels = QUICK_LEVELS if options.quick else LEVELS
    with tempfile.TemporaryDirectory(prefix="ladabert-serving-") as temporary, contextlib.ExitStack() as stack:
        folder = Path(temporary)
        graphs = [
            teacher_graph(options.teacher.resolve(), options.model.parent / SCHEMA_FILE, folder),
            student_graph(options.model, folder),
        ]
        setups = [stack.enter_context(_started(graph, options, folder)) for graph in graphs]
        for setup in setups:
            _check(setup)
        _say("all servers are up and give the same labels")
        batch_sizes = {
            (setup.graph.key, load): next(iter(setup.limit.best_batch_size(setup.texts.all_of(load)[:TRIED], 0.3)))
            for setup in setups
            for load in ("sentence", "mixed")
        }
        results = Results(_about(options, rounds, pace, setups, batch_sizes))
        for number in range(1, rounds + 1):
            start = time.monotonic()
            for level, keys in levels.items():
                for setup in setups:
                    if setup.graph.key in keys:
                        results.points += _measure(setup, level, number, pace, batch_sizes)
            for setup in setups:
                ours = setup.servers[0]
                results.specials += measure_ours_alone(ours, setup.timed, setup.limit, setup.texts, number, pace)
            _say(f"round {number} of {rounds}: {time.monotonic() - start:.0f} s")
            if options.json is not None:
                results.save(options.json)
    print(markdown(results), end="")
    if options.plot is not None:
        plot(results, options.plot)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", type=Path, required=True, help="Hugging Face folder of the teacher")
    parser.add_argument("--model", type=Path, default=Path("models/sst2-ladabert-4"), help="the student's artefact")
    parser.add_argument("--peers", type=Path, help="what benchmarks.serving.environments made; unset: without them")
    parser.add_argument("--texts", type=Path, help="sentences, TSV with a header or one a line; unset: made up")
    parser.add_argument("--ours", default="", metavar="OPTIONS", help="options of our service, as in '--workers 2'")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="for each point (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="one short round over fewer points")
    parser.add_argument("--json", type=Path, help="write every round's figures here")
    parser.add_argument("--plot", type=Path, help="write the plot here")
    return parser


@contextlib.contextmanager
def _started(graph: Graph, options: argparse.Namespace, folder: Path) -> Iterator[Setup]:
    """Load the graph here and start every contender that serves it."""
    entered = contenders(shlex.split(options.ours), options.peers)
    if graph.transformers is not None:
        entered.append(pipeline())
        on_openvino = ours_on_openvino(shlex.split(options.ours))  # which is for fp32 graphs
        if on_openvino is not None:
            entered.append(on_openvino)
    short, long = made_up_mix(MIX, min(256, graph.artefact.max_length))
    sentences = read_texts(options.texts) if options.texts else made_up_sentences(SENTENCES)
    texts = Texts(shuffled(sentences)[:SENTENCES], short, long)
    with contextlib.ExitStack() as stack:
        limit = InProcess(graph)
        stack.callback(limit.close)
        servers = []
        for contender in (*entered, timed_service()):
            server = Server(contender, graph, folder)
            stack.callback(server.stop)
            server.wait_until_ready()
            _say(f"{server.name} is up")
            servers.append(server)
        yield Setup(graph, limit, texts, servers[:-1], servers[-1])


def _check(setup: Setup) -> None:
    texts = [*setup.texts.sentences[:CHECKED], *setup.texts.short[:CHECKED], *setup.texts.long[:CHECKED]]
    labels = setup.limit.labels(texts)
    for server in (*setup.servers, setup.timed):
        server.check(texts, labels)


def _measure(
    setup: Setup, level: Level, number: int, pace: Pace, batch_sizes: dict[tuple[str, str], int]
) -> Iterator[Point]:
    """Measure every contender at one level, in an order that changes from round to round."""
    load, clients = level
    turn = number % len(setup.servers)
    for server in (*setup.servers[turn:], *setup.servers[:turn]):
        point = measure_load(server, setup.texts, load, clients, number, pace)
        _say(f"{server.name}, {load}, {clients}: {point.requests_per_s:.1f}/s, p99 {point.p99_ms:.0f} ms")
        yield point
    if clients >= LIMIT_FROM:
        texts = setup.texts.all_of(load)
        rate = setup.limit.texts_per_s(texts, batch_sizes[setup.graph.key, load], pace.seconds)
        _say(f"in-process limit ({setup.graph.key}), {load}: {rate:.1f}/s")
        yield Point(number, setup.graph.key, LIMIT, load, clients, requests_per_s=rate)


def _about(
    options: argparse.Namespace,
    rounds: int,
    pace: Pace,
    setups: Sequence[Setup],
    batch_sizes: dict[tuple[str, str], int],
) -> dict[str, Any]:
    arguments = [_without_folder(argument) for argument in sys.argv[1:]]
    return {
        "command": shlex.join(["python", "-m", "benchmarks.serving.compare", *arguments]),
        "commit": _git("describe", "--always", "--dirty", "--exclude=*"),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "machine": processor_name(),
        "cores": len(os.sched_getaffinity(0)),
        "rounds": rounds,
        "seconds": pace.seconds,
        "texts": options.texts.name if options.texts else "made up",
        "graphs": {
            setup.graph.key: {**setup.graph.describe(), "limit_batch_size": batch_sizes[setup.graph.key, "sentence"]}
            for setup in setups
        },
        "versions": _versions(options.peers),
    }


def _without_folder(argument: str) -> str:
    """Keep this machine's folders out of the results."""
    return Path(argument).name if argument.startswith("/") else argument


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=MODULES_FOLDER, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def _versions(peers: Path | None) -> dict[str, str]:
    """Return the versions of what was compared, the peers' from their own environments."""
    names = ("onnxruntime", "tokenizers", "fastapi", "uvicorn", "torch", "transformers")
    versions = {"Python": platform.python_version(), **{name: metadata.version(name) for name in names}}
    for name, package in (("litserve", "litserve"), ("infinity", "infinity-emb")):
        if peers is not None:
            code = f"from importlib.metadata import version; print(version({package!r}))"
            done = subprocess.run([python_of(peers, name), "-c", code], capture_output=True, text=True, check=True)
            versions[package] = done.stdout.strip()
    return versions


def _say(text: str) -> None:
    print(f"{time.perf_counter():10.1f} s  {text}", file=sys.stderr, flush=True)


def _end(number: int, _: FrameType | None) -> None:
    """Leave in order, which ends the servers; a second signal does not interrupt that."""
    signal.signal(number, signal.SIG_IGN)
    sys.exit(1)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _end)
    main()
