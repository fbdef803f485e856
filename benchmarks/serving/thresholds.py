"""What the service promises about its speed, each promise beside what a run measured."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from benchmarks.serving.contenders import LIMIT, OURS, OURS_OPENVINO, PIPELINE, TITLES
from benchmarks.serving.results import Results

SAME_FILE = tuple(name for name in TITLES if name not in (LIMIT, OURS, OURS_OPENVINO, PIPELINE))
OF_THE_LIMIT = {("teacher", 64): 0.75, ("teacher", 32): 0.65, ("student", 64): 0.70, ("student", 32): 0.60}
GRAPHS = {"teacher": "teacher, fp32", "student": "student, int8"}

ON_OPENVINO = ("teacher", OURS_OPENVINO, "teacher, fp32, with OpenVINO")


@dataclass(frozen=True, slots=True)
class Promise:
    """A claim, the figure that it needs and the figure that was measured (None: it was not)."""

    claim: str
    at_least: float | None
    at_most: float | None
    measured: float | None
    unit: str = ""

    @property
    def verdict(self) -> str:
        """`ok`, `short` or `not measured`."""
        if self.measured is None:
            return "not measured"
        kept = (self.at_least is None or self.measured >= self.at_least) and (
            self.at_most is None or self.measured <= self.at_most
        )
        return "ok" if kept else "short"

    @property
    def wanted(self) -> str:
        """The threshold as text."""
        figure = f"≥ {self.at_least:g}" if self.at_least is not None else f"≤ {self.at_most:g}"
        return figure + self.unit


def promises(results: Results) -> list[Promise]:
    """Return every promise with its figure: the median of the ratios within each round."""
    found = []
    for (graph, concurrency), least in OF_THE_LIMIT.items():
        claim = f"{GRAPHS[graph]}: throughput over the in-process limit, concurrency {concurrency}"
        ours = results.select(graph, OURS, "sentence", concurrency)
        limit = results.select(graph, LIMIT, "sentence", concurrency)
        found.append(Promise(claim, least, None, results.ratio(ours, limit, "requests_per_s", max)))
    for graph, name, title in (*((graph, OURS, title) for graph, title in GRAPHS.items()), ON_OPENVINO):
        ours = results.select(graph, name, "sentence", 32)
        if not ours and name == OURS_OPENVINO:  # it was not installed
            continue
        others = [p for other in SAME_FILE for p in results.select(graph, other, "sentence", 32)]
        rate = results.ratio(ours, others, "requests_per_s", max)
        p99 = results.ratio(ours, others, "p99_ms", min)
        found.append(Promise(f"{title}: throughput over the best other server, concurrency 32", 1.5, None, rate))
        found.append(Promise(f"{title}: p99 over the lowest of the others, concurrency 32", None, 1.0, p99))
    ours = results.select("student", OURS, "sentence", 32)
    pipeline = results.select("teacher", PIPELINE, "sentence", 32)
    times = results.ratio(ours, pipeline, "requests_per_s", max)
    found.append(Promise("student here over transformers.pipeline on the teacher, concurrency 32", 20, None, times))
    for graph, title in GRAPHS.items():
        found += _of_our_service_alone(results, graph, title)
    return found


def _of_our_service_alone(results: Results, graph: str, title: str) -> Iterable[Promise]:
    overhead = results.special(graph, "overhead_us")
    yield Promise(f"{title}: CPU time on top of tokenising and model, a request", None, 150, overhead, " µs")
    gap = results.special(graph, "gap_ms")
    yield Promise(f"{title}: concurrency 1, p50 over one in-process call", None, 0.6, gap, " ms")
    mixed = results.special_ratio(graph, "short_with_long_p99_ms", "short_alone_p99_ms")
    yield Promise(f"{title}: p99 of short texts with as many clients of long ones, over alone", None, 3, mixed)
    lists = results.special_ratio(graph, "single_with_list_p99_ms", "single_alone_p99_ms")
    yield Promise(f"{title}: p99 of single texts beside a client of 512-text lists, over alone", None, 3, lists)
