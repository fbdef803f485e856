"""Compares servers of the same ONNX file with each other and with what the machine can do, in one run.

python -m benchmarks serving --teacher DIR [--model models/NAME] [--peers FOLDER] [--texts FILE] [--quick] [--write]

Contenders take turns at every point of every round; whoever is not measured is stopped by SIGSTOP. SIGTERM ends it in
order. docs/results/serving.md says what is measured, and how.
"""

import argparse
import asyncio
import contextlib
import gc
import platform
import shlex
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.harness.load import Answers, closed_loop
from benchmarks.harness.results import Results, origin
from benchmarks.harness.servers import Server
from benchmarks.harness.statistics import in_turn, percentile
from benchmarks.harness.texts import made_up_mix, made_up_sentences, read_texts, shuffled
from benchmarks.serving import page
from benchmarks.serving.contenders import LIMIT, Contender, Inputs, Kinds, contenders, timed_service
from benchmarks.serving.environments import DISTRIBUTIONS, version_of
from benchmarks.serving.graphs import Graph, student_graph, teacher_graph
from benchmarks.serving.limit import InProcess

LEVELS: dict[tuple[str, int], tuple[str, ...]] = {  # load and concurrency, and the graphs that are measured there
    **{("sentence", clients): ("teacher", "student") for clients in (1, 8, 32, 64)},
    **{("mixed", clients): ("teacher",) for clients in (1, 8, 64)},
    ("mixed", 32): ("teacher", "student"),
}
QUICK_LEVELS: dict[tuple[str, int], tuple[str, ...]] = {
    **{("sentence", clients): ("teacher", "student") for clients in (1, 32, 64)},
    ("mixed", 32): ("teacher",),
}
LIMIT_FROM = 32  # clients; with fewer the limit is nothing to compare with
SENTENCES, MIX = 1024, 128  # texts
TRIED = 256  # texts on which the limit finds its batch size
CHECKED = 16  # texts that everyone must give the same label
FAIRNESS_CLIENTS = 16
LIST_LENGTH = 512
GAP_BLOCKS = 4
OVERHEAD_CONCURRENCY = 32
PACKAGES = ("onnxruntime", "tokenizers", "fastapi", "uvicorn", "torch", "transformers")

sections = page.sections
draw = page.draw


@dataclass(slots=True)
class Pace:
    """How long each measurement takes."""

    seconds: float
    warm_up_s: float


class Measured:
    """A started contender of one graph, stopped whenever it is not measured."""

    def __init__(self, contender: Contender, server: Server, marks_per_text: int) -> None:
        self.contender = contender
        self.server = server
        self._marks_per_text = marks_per_text

    def kinds(self, **inputs: Sequence[Inputs]) -> Kinds:
        """Return requests of these texts."""
        return Kinds(self.contender, self._marks_per_text, **inputs)

    async def drive(self, pace: Pace, *streams: tuple[int, Kinds]) -> tuple[Answers, dict[str, list[float]]]:
        """Put streams of so many clients on the server, alone; return the first's answers and all latencies by kind.

        A latency is in milliseconds, of a right answer; the first stream's probe counts the server's and our CPU.
        """
        self.server.resume()
        gc.collect()
        gc.disable()
        try:
            loads = await asyncio.gather(
                *(
                    closed_loop(
                        self.server.port,
                        kinds.requests,
                        clients,
                        pace.seconds,
                        warm_up_s=pace.warm_up_s,
                        least_answers=4 * clients,
                        come_again=True,
                        probe=lambda: (self.server.cpu_s(), time.thread_time()),
                    )
                    for clients, kinds in streams
                )
            )
        finally:
            gc.enable()
            self.server.pause()
        latencies: dict[str, list[float]] = {}
        for answers, (_, kinds) in zip(loads, streams, strict=True):
            for answer in answers.all:
                kind = kinds.kind_of(answer.request, answer.status, answer.body)
                latencies.setdefault(kind or "wrong", []).append(answer.seconds * 1000)
        return loads[0], latencies


@dataclass(slots=True)
class Setup:
    """What is measured for one graph; our service is the first of those compared."""

    graph: Graph
    limit: InProcess
    texts: dict[str, dict[str, list[str]]]  # by load and kind
    compared: list[Measured]
    timed: Measured
    batch_sizes: dict[str, int]  # the limit's, by load


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what the command is told."""
    parser.add_argument("--teacher", type=Path, required=True, help="Hugging Face folder of the teacher")
    parser.add_argument("--model", type=Path, default=Path("models/sst2-x10"), help="the student's artefact")
    parser.add_argument("--peers", type=Path, help="what `benchmarks environments` made; unset: without them")
    parser.add_argument("--texts", type=Path, help="sentences, TSV with a header or one a line; unset: made up")
    parser.add_argument("--ours", default="", metavar="OPTIONS", help="options of our service, as in '--workers 2'")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="for each point (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="one short round over fewer points")


def measure(options: argparse.Namespace) -> Results:
    """Measure every point of every round; what is there is kept in --json after each."""
    signal.signal(signal.SIGTERM, _end)
    return asyncio.run(_measure(options))


async def _measure(options: argparse.Namespace) -> Results:
    rounds, pace = (1, Pace(1.5, 0.3)) if options.quick else (options.rounds, Pace(options.seconds, 0.5))
    results = Results("serving", origin(*PACKAGES))
    peers = (
        {}
        if options.peers is None
        else {title: version_of(options.peers, name) for name, title in DISTRIBUTIONS.items()}
    )
    results.origin["versions"] = {"Python": platform.python_version(), **results.origin["versions"], **peers}
    with tempfile.TemporaryDirectory(prefix="ladabert-serving-") as temporary:
        folder = Path(temporary)
        teacher = teacher_graph(options.teacher.resolve(), folder)
        graphs = [teacher, student_graph(options.model, folder)]
        async with contextlib.AsyncExitStack() as stack:
            setups = [await stack.enter_async_context(_started(graph, options)) for graph in graphs]
            _say("all servers are up and give the same labels")
            results.settings = {
                "rounds": rounds,
                "seconds": pace.seconds,
                "texts": options.texts.name if options.texts else "made up",
                "graphs": {
                    setup.graph.key: {**setup.graph.describe(), "limit_batch_size": setup.batch_sizes["sentence"]}
                    for setup in setups
                },
            }
            for number in range(1, rounds + 1):
                for (load, clients), keys in (QUICK_LEVELS if options.quick else LEVELS).items():
                    for setup in setups:
                        if setup.graph.key in keys:
                            await _measure_level(results, setup, load, clients, number, pace)
                for setup in setups:
                    figures = await _measure_ours_alone(setup, pace)
                    for name, value in figures.items():
                        results.add("alone", round=number, graph=setup.graph.key, name=name, value=value)
                _say(f"round {number} of {rounds} is done")
                if options.json is not None:
                    results.save(options.json)
    return results


@contextlib.asynccontextmanager
async def _started(graph: Graph, options: argparse.Namespace) -> AsyncIterator[Setup]:
    """Load the graph here, start every contender that serves it, and hold each to the graph's labels."""
    short, long = made_up_mix(MIX, min(256, graph.artefact.max_length))
    sentences = shuffled(read_texts(options.texts) if options.texts else made_up_sentences(SENTENCES))[:SENTENCES]
    checked = [*sentences[:CHECKED], *short[:CHECKED], *long[:CHECKED]]
    async with contextlib.AsyncExitStack() as stack:
        limit = stack.enter_context(contextlib.closing(InProcess(graph)))
        labels = limit.labels(checked)
        measured = []
        for contender in (*contenders(shlex.split(options.ours), options.peers, graph), timed_service()):
            server = await stack.enter_async_context(contender.start(graph))
            measured.append(Measured(contender, server, await contender.check(server, checked, labels)))
            server.pause()
            _say(f"{server.name} is up")
        texts = {"sentence": {"sentence": sentences}, "mixed": {"short": short, "long": long}}
        sizes = {load: limit.best_batch_size(_all_of(kinds)[:TRIED], 0.3) for load, kinds in texts.items()}
        yield Setup(graph, limit, texts, measured[:-1], measured[-1], sizes)


async def _measure_level(results: Results, setup: Setup, load: str, clients: int, number: int, pace: Pace) -> None:
    """Measure every contender at one level, in an order that changes from round to round."""
    key, texts = setup.graph.key, setup.texts[load]
    point = {"round": number, "graph": key, "load": load, "concurrency": clients}
    for one in in_turn(setup.compared, number):
        answers, latencies = await one.drive(pace, (clients, one.kinds(**texts)))
        wrong = latencies.pop("wrong", [])
        right = [value for values in latencies.values() for value in values]
        server_s, client_s = (1000 * spent / max(1, len(right)) for spent in answers.spent)
        row = results.add(
            "points",
            **point,
            contender=one.contender.name,
            requests_per_s=len(right) / answers.seconds,
            p50_ms=percentile(right, 50),
            p99_ms=percentile(right, 99),
            short_p99_ms=percentile(latencies["short"], 99) if "short" in latencies else None,
            refused=answers.refused,
            errors=len(wrong),
            cpu_ms=server_s,
            client_cpu_ms=client_s,
            peak_mib=one.server.peak_mib(),
        )
        _say(f"{one.server.name}, {load}, {clients}: {row['requests_per_s']:.1f}/s, p99 {row['p99_ms']:.0f} ms")
    if clients >= LIMIT_FROM:
        rate = setup.limit.texts_per_s(_all_of(texts), setup.batch_sizes[load], pace.seconds)
        results.add("points", **point, contender=LIMIT, requests_per_s=rate)
        _say(f"in-process limit ({key}), {load}: {rate:.1f}/s")


async def _measure_ours_alone(setup: Setup, pace: Pace) -> dict[str, float]:
    """Return the overhead in CPU and in latency, and what short and single texts suffer from others."""
    ours, sentences, mixed = setup.compared[0], setup.texts["sentence"]["sentence"], setup.texts["mixed"]
    errors = 0

    async def p99(kind: str, *streams: tuple[int, Kinds]) -> float:
        nonlocal errors
        answers, latencies = await ours.drive(pace, *streams)
        errors += answers.refused + len(latencies.pop("wrong", []))
        return percentile(latencies.get(kind, []), 99)

    short = (FAIRNESS_CLIENTS, ours.kinds(short=mixed["short"]))
    long = (FAIRNESS_CLIENTS, ours.kinds(long=mixed["long"]))
    single = (FAIRNESS_CLIENTS, ours.kinds(single=sentences))
    lists = (1, ours.kinds(lists=[[sentences[index % len(sentences)] for index in range(LIST_LENGTH)]]))
    return {
        **await _overhead(setup.timed, sentences, pace),
        **await _gap(setup, pace),
        "short_alone_p99_ms": await p99("short", short),
        "short_with_long_p99_ms": await p99("short", short, long),
        "single_alone_p99_ms": await p99("single", single),
        "single_with_list_p99_ms": await p99("single", single, lists),
        "errors": errors,
    }


async def _overhead(timed: Measured, sentences: list[str], pace: Pace) -> dict[str, float]:
    """Return CPU microseconds a request, from counters read while the server is under load."""
    timed.server.resume()
    before = timed.server.ask_counters()
    await timed.drive(Pace(pace.seconds, 0), (OVERHEAD_CONCURRENCY, timed.kinds(sentence=sentences)))
    timed.server.resume()
    after = timed.server.ask_counters()
    timed.server.pause()
    spent = {name: after[name] - before[name] for name in after}
    per_text = 1e6 / spent["texts"]
    return {
        "overhead_us": (spent["cpu_s"] - spent["tokenize_s"] - spent["run_s"]) * per_text,
        "tokenize_us": spent["tokenize_s"] * per_text,
        "run_us": spent["run_s"] * per_text,
    }


async def _gap(setup: Setup, pace: Pace) -> dict[str, float]:
    """Return an in-process call and how much longer a request takes, in turns short enough to drift together."""
    ours, sentences = setup.compared[0], setup.texts["sentence"]["sentence"]
    block = Pace(pace.seconds / GAP_BLOCKS, pace.warm_up_s / GAP_BLOCKS)
    calls, gaps = [], []
    for _ in range(GAP_BLOCKS):
        calls.append(setup.limit.call_ms(shuffled(sentences), block.seconds))
        _, latencies = await ours.drive(block, (1, ours.kinds(sentence=sentences)))
        gaps.append(percentile(latencies["sentence"], 50) - calls[-1])
    return {"call_ms": statistics.median(calls), "gap_ms": statistics.median(gaps)}


def _all_of(kinds: dict[str, list[str]]) -> list[str]:
    return [text for texts in kinds.values() for text in texts]


def _say(text: str) -> None:
    print(f"{time.perf_counter():10.1f} s  {text}", file=sys.stderr, flush=True)


def _end(number: int, _: Any) -> None:
    """Leave in order, which ends the servers; a second signal does not interrupt that."""
    signal.signal(number, signal.SIG_IGN)
    sys.exit(1)
