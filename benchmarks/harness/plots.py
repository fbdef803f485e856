"""Plots of the pages: the same figures give the same file."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

IMAGES = Path(__file__).parents[2] / "docs" / "images"


@dataclass(frozen=True)
class Theme:
    """The colours of a plot on a light or a dark page; the background stays transparent."""

    name: str
    text: str
    teacher: str
    student: str


THEMES = (Theme("light", "#1f2328", "#bc4c00", "#0969da"), Theme("dark", "#e6edf3", "#f0883e", "#58a6ff"))


def new_figure(width: float, height: float, rows: int = 1, columns: int = 1) -> tuple[Figure, Any]:
    """Return a figure of so many inches and its axes, as an array [rows, columns]."""
    mpl.rcParams["svg.hashsalt"] = "benchmarks"
    mpl.rcParams["svg.fonttype"] = "none"  # text stays text
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def draw_line(axes: Axes, xs: list[Any], ys: list[float], title: str, colour: str, *, ours: bool, dots: bool) -> None:
    """Draw one contender's line, ours the thicker one."""
    width = 2.4 if ours else 1.4
    axes.plot(xs, ys, marker="o" if dots else "", markersize=4, linewidth=width, color=colour, label=title)


def save(figure: Figure, path: Path) -> None:
    """Write the figure with one legend for all its axes; the ending says in which format."""
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", alpha=0.3)
    named = {label: line for axes in figure.axes for line, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(named.values(), named.keys(), loc="outside lower center", ncols=3, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def save_in_theme(figure: Figure, path: Path, theme: Theme) -> None:
    """Write a figure without a legend, its axes and words in the theme's colour."""
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(theme.text)
        axes.grid(axis="y", alpha=0.3)
        axes.tick_params(colors=theme.text)
        for label in (axes.xaxis.label, axes.yaxis.label):
            label.set_color(theme.text)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None}, transparent=True)
