"""The plot of ``bench``: how many times as fast as the baseline, shape by shape."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl

from compression.report_plots import GREY, STYLE, colours, new_figure, svg_of


def plot_bench(figures: dict[str, Any]) -> str:
    """Bars of every subject at every shape on a logarithmic scale, as SVG."""
    rows = figures["table"]
    names = list(dict.fromkeys(row["name"] for row in rows))
    shapes = list(dict.fromkeys((row["batch"], row["tokens"]) for row in rows))
    width = 0.8 / len(names)
    with mpl.rc_context(STYLE):
        figure, axes = new_figure("bench", 7.4, 2.4 + 0.28 * len(names))
        for index, (name, colour) in enumerate(zip(names, colours(len(names)), strict=True)):
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
        return svg_of(figure)
