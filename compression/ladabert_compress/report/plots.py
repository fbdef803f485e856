"""The plots of ``report`` and ``bench`` as SVG to put into a page."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from ladabert_compress.measure.reliability import Bin

COLOURS = ("#2563a8", "#d9742b", "#3b8f57", "#8a4fa3", "#b8860b", "#357f8f", "#c2455a", "#5f6b7a")
TEACHER_COLOUR, GREY = "#1d2733", "#8b95a1"
STYLE: Any = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["system-ui", "Segoe UI", "Helvetica", "Arial", "DejaVu Sans"],
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.labelcolor": "#3b4652",
    "axes.grid": True,
    "grid.color": "#e6e9ed",
    "xtick.color": "#3b4652",
    "ytick.color": "#3b4652",
    "legend.frameon": False,
}


@dataclass(frozen=True)
class Curve:
    """A run's evaluations and losses by step, and the steps at which it shrank."""

    name: str
    evaluations: Sequence[Mapping[str, float]]
    losses: Sequence[Mapping[str, float]]
    shrink_steps: Sequence[int]


@dataclass(frozen=True)
class Point:
    """One model in a plot of accuracy against what it costs."""

    name: str
    cost: float
    accuracy: float
    is_teacher: bool = False


def plot_accuracies(curves: Sequence[Curve], teacher_accuracy: float | None) -> str:
    """Dev accuracy of every run against its steps, its shrink steps marked below."""
    with mpl.rc_context(STYLE):
        figure, axes = _new_figure("accuracies", 7.4, 3.4)
        for colour, curve in zip(_colours(len(curves)), curves, strict=True):
            steps = [entry["step"] for entry in curve.evaluations]
            axes.plot(
                steps, [entry["accuracy"] for entry in curve.evaluations], "o-", ms=4, label=curve.name, color=colour
            )
            _mark_shrinks(axes, curve.shrink_steps, colour)
        if teacher_accuracy is not None:
            axes.axhline(teacher_accuracy, color=TEACHER_COLOUR, lw=1, ls="--", label="teacher")
        axes.set(xlabel="step", ylabel="dev accuracy", xlim=(0, None))
        _per_cent(axes)
        axes.legend(loc="best")
        return _svg_of(figure)


def plot_losses(curve: Curve) -> str:
    """The running mean of each term of the loss on a logarithmic scale."""
    with mpl.rc_context(STYLE):
        figure, axes = _new_figure(f"losses {curve.name}", 5.0, 3.2)
        steps = [entry["step"] for entry in curve.losses]
        terms = [name for name in curve.losses[0] if name != "step"]
        for colour, name in zip(_colours(len(terms)), terms, strict=True):
            axes.plot(steps, [entry[name] for entry in curve.losses], label=name, color=colour)
        _mark_shrinks(axes, curve.shrink_steps, GREY)
        axes.set(xlabel="step", ylabel="loss, running mean", yscale="log", title=curve.name, xlim=(0, None))
        axes.legend(loc="best", fontsize=9, ncols=2)
        return _svg_of(figure)


def plot_points(points: Sequence[Point], axis: str) -> str:
    """Accuracy against a cost on a logarithmic scale, the teacher marked; empty for no points."""
    if not points:
        return ""
    with mpl.rc_context(STYLE):
        figure, axes = _new_figure(axis, 5.0, 3.4)
        students = sorted((point for point in points if not point.is_teacher), key=lambda point: point.cost)
        axes.plot([p.cost for p in students], [p.accuracy for p in students], color=GREY, lw=1, zorder=1)
        for point in points:
            colour, marker = (TEACHER_COLOUR, "D") if point.is_teacher else (COLOURS[0], "o")
            axes.scatter(point.cost, point.accuracy, color=colour, marker=marker, s=42, zorder=2)
            label = f"{point.name} (teacher)" if point.is_teacher else point.name
            axes.annotate(
                label, (point.cost, point.accuracy), (0, 8), textcoords="offset points", ha="center", fontsize=9
            )
        for point in points:
            if point.is_teacher:
                axes.axhline(point.accuracy, color=TEACHER_COLOUR, lw=0.8, ls="--", zorder=0)
        axes.set(xlabel=axis, ylabel="accuracy", xscale="log")
        axes.margins(0.25, 0.2)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5, 7)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_locator(NullLocator())
        _per_cent(axes)
        return _svg_of(figure)


def plot_reliability(name: str, before: Sequence[Bin], after: Sequence[Bin] | None) -> str:
    """How often decisions of like confidence are right; the larger a mark, the more decisions."""
    with mpl.rc_context(STYLE):
        figure, axes = _new_figure(f"reliability {name}", 4.0, 3.6)
        axes.plot([0, 1], [0, 1], color=TEACHER_COLOUR, lw=1, ls="--", zorder=0)
        series = [("logits as they are", before, COLOURS[1])]
        if after is not None:
            series.append(("with the temperature", after, COLOURS[0]))
        for label, bins, colour in series:
            total = sum(entry.decisions for entry in bins)
            confidence, right = [entry.confidence for entry in bins], [entry.accuracy for entry in bins]
            axes.plot(confidence, right, color=colour, lw=1.2, label=label)
            axes.scatter(
                confidence, right, s=[12 + 240 * entry.decisions / total for entry in bins], color=colour, alpha=0.7
            )
        lowest = min(min(entry.confidence, entry.accuracy) for entry in before)
        axes.set(xlabel="confidence", ylabel="share that is right", title=name)
        axes.set_xlim(max(0.0, lowest - 0.05), 1.02)
        axes.set_ylim(max(0.0, lowest - 0.05), 1.02)
        axes.legend(loc="upper left", fontsize=9)
        return _svg_of(figure)


def plot_bench(figures: dict[str, Any]) -> str:
    """Bars of every subject at every shape on a logarithmic scale, as SVG."""
    rows = figures["table"]
    names = list(dict.fromkeys(row["name"] for row in rows))
    shapes = list(dict.fromkeys((row["batch"], row["tokens"]) for row in rows))
    width = 0.8 / len(names)
    with mpl.rc_context(STYLE):
        figure, axes = _new_figure("bench", 7.4, 2.4 + 0.28 * len(names))
        for index, (name, colour) in enumerate(zip(names, _colours(len(names)), strict=True)):
            found = [row for row in rows if row["name"] == name]
            places = [place + (index - (len(names) - 1) / 2) * width for place in range(len(shapes))]
            bars = axes.bar(places, [row["times_baseline"] for row in found], width, color=colour, label=name)
            axes.bar_label(bars, [f"{row['median_ms']:.3g}" for row in found], fontsize=7, padding=1)
        axes.axhline(1, color=GREY, lw=1, ls="--")
        axes.set(ylabel=f"times as fast as\n{figures['baseline']}", yscale="log", title="ms at the bars, one thread")
        axes.set_xticks(range(len(shapes)), [f"{batch} × {tokens} tokens" for batch, tokens in shapes])
        axes.yaxis.set_major_formatter("{x:g}×")
        axes.grid(visible=False, axis="x")
        figure.legend(loc="outside lower center", fontsize=8, ncols=2)
        return _svg_of(figure)


def _new_figure(salt: str, width: float, height: float) -> tuple[Figure, Axes]:
    """A figure of that many inches with one pair of axes; figures of one page need different salts."""
    mpl.rcParams["svg.hashsalt"] = salt  # element ids differ between the plots of a page, and not between two runs
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def _colours(count: int) -> list[str]:
    """That many colours in the page's order."""
    return [COLOURS[index % len(COLOURS)] for index in range(count)]


def _mark_shrinks(axes: Axes, steps: Sequence[int], colour: str) -> None:
    for step in steps:
        axes.axvline(step, color=colour, lw=0.8, ls=":", alpha=0.8)


def _per_cent(axes: Axes) -> None:
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.3g} %"))


def _svg_of(figure: Figure) -> str:
    """The drawing without the XML header and metadata, whose addresses a page has no use for."""
    buffer = io.StringIO()
    figure.savefig(
        buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
    )
    text = buffer.getvalue()
    return text[text.index("<svg") :]
