"""What the comparison found, as a page shows it: promises with what was measured, tables, and a plot."""

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.harness.pages import figure, table
from benchmarks.harness.plots import IMAGES, draw_line, new_figure, save
from benchmarks.harness.results import Results, Row
from benchmarks.serving import capacity
from benchmarks.serving.contenders import LIMIT, OURS, OURS_OPENVINO, PIPELINE, TITLES

SAME_FILE = tuple(name for name in TITLES if name not in (LIMIT, OURS, OURS_OPENVINO, PIPELINE))
OF_THE_LIMIT = {("teacher", 64): 0.75, ("teacher", 32): 0.65, ("student", 64): 0.70, ("student", 32): 0.60}
GRAPHS = {"teacher": "teacher, fp32", "student": "student, int8"}
LOADS = {"sentence": "one sentence a request", "mixed": "mixed lengths, half short and half long"}
COLOURS = dict(zip(TITLES, ("#777777", "#c1272d", "#e6862e", "#1f77b4", "#2ca02c", "#9467bd", "#8c564b"), strict=True))
ALONE = {
    "overhead_us": "CPU on top of tokenising and model, µs a request (concurrency 32)",
    "tokenize_us": "CPU of tokenising, µs a request",
    "run_us": "CPU of the model, µs a request",
    "call_ms": "one in-process call, median ms",
    "gap_ms": "p50 at concurrency 1 minus that, ms",
    "short_alone_p99_ms": "short texts alone, 16 clients: p99 ms",
    "short_with_long_p99_ms": "short texts, 16 clients beside 16 of long texts: p99 ms",
    "single_alone_p99_ms": "single sentences alone, 16 clients: p99 ms",
    "single_with_list_p99_ms": "single sentences, 16 clients beside one of 512-text lists: p99 ms",
    "errors": "refusals and errors in all of these, a round",
}


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
        low, high = self.at_least or -math.inf, self.at_most or math.inf
        return "ok" if low <= self.measured <= high else "short"

    @property
    def wanted(self) -> str:
        """The threshold as text."""
        return (f"≥ {self.at_least:g}" if self.at_least is not None else f"≤ {self.at_most:g}") + self.unit


def sections(results: Results) -> dict[str, str]:
    """Return where the figures come from, the promises, and a table for each graph and load."""
    judged = [
        (row.claim, row.wanted, "–" if row.measured is None else f"{row.measured:.3g}{row.unit}", row.verdict)
        for row in promises(results)
    ]
    parts = ["\n".join(_about(results)) + "\n", table(["promise", "threshold", "measured", ""], judged)]
    for graph, title in GRAPHS.items():
        for load, name in LOADS.items():
            if results.rows("points", graph=graph, load=load):
                parts.append(f"### {title}: {name}\n\n" + _levels(results, graph, load))
    alone = ([title, *(figure(_alone(results, graph, name)) for graph in GRAPHS)] for name, title in ALONE.items())
    parts.append("### Our service alone\n\n" + table(["", *GRAPHS.values()], alone))
    return {"serving": "\n".join(parts), **capacity.sections(results)}


def promises(results: Results) -> list[Promise]:
    """Return every promise with its figure: the median of the ratios within each round."""

    def at(graph: str, contender: str, concurrency: int = 32) -> list[Row]:
        return results.rows("points", graph=graph, contender=contender, load="sentence", concurrency=concurrency)

    found = []
    for (graph, concurrency), least in OF_THE_LIMIT.items():
        claim = f"{GRAPHS[graph]}: throughput over the in-process limit, concurrency {concurrency}"
        reached = ratio(at(graph, OURS, concurrency), at(graph, LIMIT, concurrency), "requests_per_s", max)
        found.append(Promise(claim, least, None, reached))
    subjects = [(graph, OURS, title) for graph, title in GRAPHS.items()]
    if at("teacher", OURS_OPENVINO):  # it was installed
        subjects.append(("teacher", OURS_OPENVINO, "teacher, fp32, with OpenVINO"))
    for graph, name, title in subjects:
        others = [row for other in SAME_FILE for row in at(graph, other)]
        rate, p99 = ratio(at(graph, name), others, "requests_per_s", max), ratio(at(graph, name), others, "p99_ms", min)
        found.append(Promise(f"{title}: throughput over the best other server, concurrency 32", 1.5, None, rate))
        found.append(Promise(f"{title}: p99 over the lowest of the others, concurrency 32", None, 1.0, p99))
    times = ratio(at("student", OURS), at("teacher", PIPELINE), "requests_per_s", max)
    found.append(Promise("student here over transformers.pipeline on the teacher, concurrency 32", 20, None, times))
    for graph, title in GRAPHS.items():
        overhead, gap = _alone(results, graph, "overhead_us"), _alone(results, graph, "gap_ms")
        mixed = _alone_ratio(results, graph, "short_with_long_p99_ms", "short_alone_p99_ms")
        lists = _alone_ratio(results, graph, "single_with_list_p99_ms", "single_alone_p99_ms")
        found += [
            Promise(f"{title}: CPU time on top of tokenising and model, a request", None, 150, overhead, " µs"),
            Promise(f"{title}: concurrency 1, p50 over one in-process call", None, 0.6, gap, " ms"),
            Promise(f"{title}: p99 of short texts with as many clients of long ones, over alone", None, 3, mixed),
            Promise(f"{title}: p99 of single texts beside a client of 512-text lists, over alone", None, 3, lists),
        ]
    return found


def ratio(ours: Sequence[Row], others: Sequence[Row], column: str, best: Callable[..., float]) -> float | None:
    """Return the median over the rounds of our figure over the best of the others' in the same round.

    Who answered nothing in a round has no figure there.
    """
    by_round: dict[int, list[float]] = {}
    for row in others:
        if row["requests_per_s"]:
            by_round.setdefault(row["round"], []).append(row[column])
    ratios = [row[column] / best(by_round[row["round"]]) for row in ours if row["round"] in by_round]
    return statistics.median(ratios) if ratios else None


def draw(results: Results, suffix: str) -> None:
    """Draw requests/s and p99 against concurrency for each graph, one sentence a request."""
    picture, axes = new_figure(9, 6.5, 2, len(GRAPHS))
    for column, (graph, title) in enumerate(GRAPHS.items()):
        rates, tails = axes[0][column], axes[1][column]
        for contender in TITLES:
            if contender != LIMIT:
                _draw_contender(rates, results, graph, contender, "requests_per_s")
                _draw_contender(tails, results, graph, contender, "p99_ms")
        limit = results.median("points", "requests_per_s", graph=graph, contender=LIMIT, load="sentence")
        if limit is not None:
            rates.axhline(limit, color=COLOURS[LIMIT], linestyle="--", label=TITLES[LIMIT])
        rates.set(title=title, ylabel="requests/s", ylim=(0, None))
        tails.set(ylabel="p99, ms", yscale="log", xlabel="concurrency")
    save(picture, IMAGES / f"serving{suffix}.svg")


def _draw_contender(axes: Any, results: Results, graph: str, contender: str, column: str) -> None:
    wanted = {"graph": graph, "contender": contender, "load": "sentence"}
    levels = sorted(set(results.values("points", "concurrency", **wanted)))
    values = [results.median("points", column, **wanted, concurrency=level) or 0.0 for level in levels]
    if levels:
        names = [str(level) for level in levels]
        draw_line(axes, names, values, TITLES[contender], COLOURS[contender], ours=contender == OURS, dots=True)


def _about(results: Results) -> Iterator[str]:
    about, settings = results.origin, results.settings
    yield f"{results.told()}."
    yield (
        f"{about['machine']}; rounds: {settings['rounds']}, "
        f"seconds a point: {settings['seconds']:g}, sentences: {settings['texts']}."
    )
    for key, graph in settings["graphs"].items():
        yield (
            f"{GRAPHS[key]}: `{graph['name']}`, {graph['bytes'] / 1e6:.1f} MB, up to {graph['max_length']} tokens, "
            f"batches of {graph['limit_batch_size']} in the in-process limit."
        )
    yield f"{results.versions()}."


def _levels(results: Results, graph: str, load: str) -> str:
    """Return requests/s (p50 / p99) of every server at every concurrency, and what they cost."""
    wanted = {"graph": graph, "load": load}
    levels = sorted(set(results.values("points", "concurrency", **wanted)))
    busiest = 32 if 32 in levels else levels[-1]
    rows = []
    for name, title in TITLES.items():
        own = results.rows("points", **wanted, contender=name)
        if not own:
            continue

        def at(level: int, column: str, name: str = name) -> str:
            return figure(results.median("points", column, **wanted, contender=name, concurrency=level))

        if name == LIMIT:
            rows.append([title, *(at(level, "requests_per_s") for level in levels), "", ""])
            continue
        cells = [f"**{at(n, 'requests_per_s')}** ({at(n, 'p50_ms')} / {at(n, 'p99_ms')})" for n in levels]
        peak = max(row["peak_mib"] for row in own if row["round"] == 1)
        sums = [str(sum(row[column] for row in own)) for column in ("refused", "errors")]
        cpu = f"{at(busiest, 'cpu_ms')}, {at(busiest, 'client_cpu_ms')}"
        rows.append([title, *cells, cpu, f"{peak:.0f} ({', '.join(sums)})"])
    return table(["server", *levels, "CPU-ms: server, client", "peak MiB (refused, errors)"], rows)


def _alone(results: Results, graph: str, name: str) -> float | None:
    return results.median("alone", "value", graph=graph, name=name)


def _alone_ratio(results: Results, graph: str, over: str, under: str) -> float | None:
    """Return the median of the ratios within each round that has both figures."""
    uppers, lowers = (
        {row["round"]: row["value"] for row in results.rows("alone", graph=graph, name=name)} for name in (over, under)
    )
    ratios = [value / lowers[number] for number, value in uppers.items() if lowers.get(number)]
    return statistics.median(ratios) if ratios else None
