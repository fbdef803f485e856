"""The measurements of one round: a load on a contender, and those of our service alone."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.serving.client import Stream
from benchmarks.serving.limit import InProcess
from benchmarks.serving.results import Point, Special, percentile
from benchmarks.serving.servers import Server
from benchmarks.serving.texts import shuffled

FAIRNESS_CLIENTS = 16
LIST_LENGTH = 512
GAP_BLOCKS = 4
OVERHEAD_CONCURRENCY = 32


@dataclass(frozen=True, slots=True)
class Texts:
    """What is sent to the servers of one graph."""

    sentences: Sequence[str]
    short: Sequence[str]
    long: Sequence[str]

    def of(self, load: str) -> dict[str, Sequence[str]]:
        """Return the texts of a load by kind."""
        return {"sentence": self.sentences} if load == "sentence" else {"short": self.short, "long": self.long}

    def all_of(self, load: str) -> list[str]:
        """Return the texts of a load."""
        return [text for texts in self.of(load).values() for text in texts]


@dataclass(frozen=True, slots=True)
class Pace:
    """How long each measurement takes."""

    seconds: float
    warm_up_s: float


def measure_load(server: Server, texts: Texts, load: str, concurrency: int, number: int, pace: Pace) -> Point:
    """Return a contender's figures under one load."""
    outcome = server.drive([server.stream(concurrency, **texts.of(load))], pace.seconds, pace.warm_up_s)
    latencies = outcome.all_latencies_ms()
    return Point(
        number,
        server.graph.key,
        server.contender.name,
        load,
        concurrency,
        requests_per_s=outcome.answers / outcome.seconds,
        p50_ms=percentile(latencies, 50),
        p99_ms=percentile(latencies, 99),
        short_p99_ms=percentile(outcome.latencies_ms.get("short", []), 99),
        refused=outcome.refused,
        errors=outcome.errors,
        cpu_ms=outcome.cpu_s / max(1, outcome.answers) * 1000,
        client_cpu_ms=outcome.client_cpu_s / max(1, outcome.answers) * 1000,
        peak_mib=server.peak_mib(),
    )


def measure_ours_alone(
    ours: Server, timed: Server, limit: InProcess, texts: Texts, number: int, pace: Pace
) -> list[Special]:
    """Return the overhead in CPU and in latency, and what short and single texts suffer from others."""
    errors: list[int] = []
    figures = {**_overhead(timed, texts, pace, errors), **_gap(ours, limit, texts, pace, errors)}
    short = ours.stream(FAIRNESS_CLIENTS, short=texts.short)
    long = ours.stream(FAIRNESS_CLIENTS, long=texts.long)
    figures["short_alone_p99_ms"] = _p99(ours, [short], "short", pace, errors)
    figures["short_with_long_p99_ms"] = _p99(ours, [short, long], "short", pace, errors)
    single = ours.stream(FAIRNESS_CLIENTS, single=texts.sentences)
    lists = ours.stream(1, lists=_lists(texts.sentences))
    figures["single_alone_p99_ms"] = _p99(ours, [single], "single", pace, errors)
    figures["single_with_list_p99_ms"] = _p99(ours, [single, lists], "single", pace, errors)
    figures["errors"] = sum(errors)
    return [Special(number, ours.graph.key, name, value) for name, value in figures.items()]


def _overhead(timed: Server, texts: Texts, pace: Pace, errors: list[int]) -> dict[str, float]:
    """Return CPU microseconds a request, from counters read while the server is under load."""
    timed.resume()
    before = timed.tell()
    outcome = timed.drive([timed.stream(OVERHEAD_CONCURRENCY, sentence=texts.sentences)], pace.seconds, 0)
    timed.resume()
    after = timed.tell()
    timed.pause()
    errors.append(outcome.errors + outcome.refused)
    spent = {name: after[name] - before[name] for name in after}
    per_text = 1e6 / spent["texts"]
    return {
        "overhead_us": (spent["cpu_s"] - spent["tokenize_s"] - spent["run_s"]) * per_text,
        "tokenize_us": spent["tokenize_s"] * per_text,
        "run_us": spent["run_s"] * per_text,
    }


def _gap(ours: Server, limit: InProcess, texts: Texts, pace: Pace, errors: list[int]) -> dict[str, float]:
    """Return an in-process call and how much longer a request takes, in turns short enough to drift together."""
    seconds = pace.seconds / GAP_BLOCKS
    stream = ours.stream(1, sentence=texts.sentences)
    in_its_order = shuffled(texts.sentences)
    calls, requests = [], []
    for _ in range(GAP_BLOCKS):
        calls.append(limit.call_ms(in_its_order, seconds))
        outcome = ours.drive([stream], seconds, pace.warm_up_s / GAP_BLOCKS)
        errors.append(outcome.errors + outcome.refused)
        requests.append(percentile(outcome.all_latencies_ms(), 50))
    gaps = [request - call for request, call in zip(requests, calls, strict=True)]
    return {"call_ms": statistics.median(calls), "gap_ms": statistics.median(gaps)}


def _p99(server: Server, streams: Sequence[Stream], kind: str, pace: Pace, errors: list[int]) -> float:
    outcome = server.drive(streams, pace.seconds, pace.warm_up_s)
    errors.append(outcome.errors + outcome.refused)
    return percentile(outcome.latencies_ms.get(kind, []), 99)


def _lists(sentences: Sequence[str]) -> list[str | list[str]]:
    return [[sentences[index % len(sentences)] for index in range(LIST_LENGTH)]]
