"""Draws accuracy against size (the paper's figure 1) and against steps (its figures 3 and 4)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.compression.evidence.contenders import BASELINES, CURVE_RATIO, PLAIN, TITLES
from benchmarks.compression.evidence.results import Results, mean

OURS = "ladabert"
CONTENDERS = (OURS, "plain", *BASELINES)
COLOURS = dict(zip(CONTENDERS, ("#c1272d", "#e8998d", "#1f77b4", "#2ca02c", "#9467bd", "#777777"), strict=True))
COLOURS["scratch-long"] = COLOURS["scratch"]


def plot_sizes(results: Results, path: Path) -> None:
    """Accuracy on dev against non-zero parameters, the teacher marked; the ending says in which format."""
    figure, axes = _figure()
    for contender in CONTENDERS:
        points = [
            (mean(run.nonzero_parameters / 1e6 for run in runs), mean(run.accuracy for run in runs))
            for ratio in PLAIN
            if (runs := results.best(contender, ratio))
        ]
        _line(axes, contender, points, marker="o")
    teacher = results.about["teacher"]
    axes.plot(teacher["parameters"] / 1e6, teacher["accuracy"], marker="*", markersize=13, color="black", linestyle="")
    axes.annotate("teacher", (teacher["parameters"] / 1e6, teacher["accuracy"]), (-8, 8), textcoords="offset points")
    axes.set_xscale("log")
    ticks = [teacher["parameters"] / ratio / 1e6 for ratio in (*PLAIN, 1.0)]
    axes.set_xticks(ticks, [f"{tick:.1f} M" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("non-zero parameters")
    _save(figure, axes, path)


def plot_curve(results: Results, path: Path) -> None:
    """Accuracy on dev against optimiser steps, the teacher's as a line; the ending says in which format."""
    figure, axes = _figure()
    for contender in (OURS, "plain", "scratch-long"):
        points = results.curve(contender, CURVE_RATIO)
        _line(axes, contender, points)
        runs = results.of(contender, CURVE_RATIO)
        if points and contender == OURS:
            cut = max(run.full_size_from_step for run in runs)
            axes.axvline(cut, color=COLOURS[OURS], linestyle=":", linewidth=1, label=f"cut to ×{CURVE_RATIO:g}")
    axes.axhline(results.about["teacher"]["accuracy"], color="black", linestyle="--", linewidth=1, label="teacher")
    axes.set_xscale("log")
    axes.set_xlabel(f"steps (×{CURVE_RATIO:g})")
    _save(figure, axes, path)


def _figure() -> tuple[Figure, Axes]:
    mpl.rcParams["svg.hashsalt"] = "evidence"  # the same figures give the same file
    mpl.rcParams["svg.fonttype"] = "none"  # text stays text
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    return figure, figure.subplots()


def _line(axes: Axes, contender: str, points: Iterable[tuple[float | None, float | None]], marker: str = "") -> None:
    known = [(x, y) for x, y in points if x is not None and y is not None]
    if known:
        axes.plot(
            [x for x, _ in known],
            [y for _, y in known],
            marker=marker,
            markersize=4,
            linewidth=2.4 if contender == OURS else 1.4,
            color=COLOURS[contender],
            label=TITLES[contender],
        )


def _save(figure: Figure, axes: Axes, path: Path) -> None:
    axes.set_ylabel("accuracy on dev")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.3)
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
