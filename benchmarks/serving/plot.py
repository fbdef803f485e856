"""Draws requests/s and p99 against concurrency for each graph, one sentence a request."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.serving.contenders import LIMIT, OURS, TITLES
from benchmarks.serving.results import Point, Results
from benchmarks.serving.thresholds import GRAPHS

COLOURS = dict(zip(TITLES, ("#777777", "#c1272d", "#e6862e", "#1f77b4", "#2ca02c", "#9467bd", "#8c564b"), strict=True))


def plot(results: Results, path: Path) -> None:
    """Write the plot; the ending says in which format."""
    mpl.rcParams["svg.hashsalt"] = "serving"  # the same figures give the same file
    mpl.rcParams["svg.fonttype"] = "none"  # text stays text
    figure = Figure(figsize=(9, 6.5), layout="constrained")
    axes = figure.subplots(2, len(GRAPHS), squeeze=False)
    for column, (graph, title) in enumerate(GRAPHS.items()):
        rates, tails = axes[0][column], axes[1][column]
        _lines(rates, results, graph, "requests_per_s")
        _lines(tails, results, graph, "p99_ms")
        limits = [
            p.requests_per_s for p in results.points if (p.graph, p.contender, p.load) == (graph, LIMIT, "sentence")
        ]
        if limits:
            middle = sorted(limits)[len(limits) // 2]
            rates.axhline(middle, color=COLOURS[LIMIT], linestyle="--", label=TITLES[LIMIT])
        rates.set_title(title)
        rates.set_ylabel("requests/s")
        rates.set_ylim(bottom=0)
        tails.set_ylabel("p99, ms")
        tails.set_yscale("log")
        tails.set_xlabel("concurrency")
    handles = {
        label: handle
        for row in axes
        for cell in row
        for handle, label in zip(*cell.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def _lines(axes: Axes, results: Results, graph: str, name: str) -> None:
    for contender, title in TITLES.items():
        levels = sorted({point.concurrency for point in _of(results, graph, contender)})
        if contender == LIMIT or not levels:
            continue
        values = [results.median(graph, contender, "sentence", level, name) for level in levels]
        axes.plot(
            [str(level) for level in levels],
            [value or 0.0 for value in values],
            marker="o",
            markersize=4,
            linewidth=2.4 if contender == OURS else 1.4,
            color=COLOURS[contender],
            label=title,
        )
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.3)


def _of(results: Results, graph: str, contender: str) -> list[Point]:
    wanted = (graph, contender, "sentence")
    return [point for point in results.points if (point.graph, point.contender, point.load) == wanted]
