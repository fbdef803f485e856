"""Draws the dashboard's panels from a Prometheus without a Grafana, for the documentation.

python docker/grafana/picture.py http://127.0.0.1:9090 docs/images/dashboard.png [--minutes 10]

Each expression of dashboards/ladabert.json is evaluated by Prometheus as Grafana would; only the drawing is ours.
"""

import argparse
import json
import math
import re
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.gridspec import GridSpec

DASHBOARD = Path(__file__).parent / "dashboards/ladabert.json"
STEP_S = 5
ROOM = 1.3  # above the highest line, for the legend
ROW_INCHES = 0.36  # of a row of Grafana's grid
COLOURS = {"green": "#3d8c40", "yellow": "#b58a17", "red": "#b8403a"}
Series = list[tuple[dict[str, str], list[tuple[float, float]]]]


def ask(prometheus: str, expression: str, begin: float, end: float) -> Series:
    """Return the series of an expression over time, each with its labels."""
    expression = expression.replace("$__rate_interval", "60s").replace("$model", ".*")
    options = urllib.parse.urlencode({"query": expression, "start": begin, "end": end, "step": STEP_S})
    with urllib.request.urlopen(f"{prometheus}/api/v1/query_range?{options}") as answer:  # noqa: S310 - the caller's
        found = json.load(answer)["data"]["result"]
    return [(each["metric"], [(float(at), float(value)) for at, value in each["values"]]) for each in found]


def legend_of(target: dict[str, Any], labels: dict[str, str]) -> str:
    """Return a line's name, with the labels filled in as Grafana does."""
    named = re.sub(r"\{\{(\w+)\}\}", lambda found: labels.get(found[1], ""), target["legendFormat"])
    return "" if named == "__auto" else named


def told(value: float, unit: str) -> str:
    """Return a number in its unit."""
    if unit == "percentunit":
        return f"{value:.1%}"
    if unit == "s":
        return f"{1000 * value:.3g} ms"
    return f"{value:.3g}" + (" req/s" if unit == "reqps" else "")


def draw_number(axes: Axes, panel: dict[str, Any], series: Series) -> None:
    """Draw the last value on the colour of its threshold."""
    defaults = panel["fieldConfig"]["defaults"]
    value = series[0][1][-1][1] if series else math.nan
    colour = [
        step["color"] for step in defaults["thresholds"]["steps"] if step["value"] is None or value >= step["value"]
    ][-1]
    axes.set_facecolor(COLOURS[colour])
    axes.set(xticks=[], yticks=[])
    axes.text(0.5, 0.45, told(value, defaults.get("unit", "none")), transform=axes.transAxes, ha="center", size=17)


def draw_lines(axes: Axes, panel: dict[str, Any], series: list[tuple[str, list[tuple[float, float]]]]) -> None:
    """Draw lines over the minutes before the end, one upon the other where the panel stacks them."""
    defaults = panel["fieldConfig"]["defaults"]
    end = max((points[-1][0] for _, points in series), default=0)
    scale, unit = {"s": (1000, "ms"), "bytes": (2**-20, "MiB"), "percentunit": (100, "%")}.get(
        defaults.get("unit", "none"), (1, defaults.get("unit", "none").replace("none", ""))
    )
    second = None
    if defaults.get("custom", {}).get("stacking", {}).get("mode") == "normal":
        series = [(name, points) for name, points in series if any(value > 0 for _, value in points)]
        times = sorted({at for _, points in series for at, _ in points})
        values = [[scale * dict(points).get(at, 0.0) for at in times] for _, points in series]
        axes.stackplot([(at - end) / 60 for at in times], *values, labels=[name for name, _ in series], alpha=0.7)
    else:
        for number, (name, points) in enumerate(series):
            at, values_of_one = [(at - end) / 60 for at, _ in points], [value for _, value in points]
            if name.startswith(("expected wait", "padding")):  # on the axis on the right, as the panel's override says
                second = second or axes.twinx()
                factor, mark = (1000, "ms") if name.startswith("expected") else (100, "%")
                second.plot(
                    at, [factor * value for value in values_of_one], "--", label=f"{name}, {mark}", color=f"C{number}"
                )
            else:
                axes.plot(at, [scale * value for value in values_of_one], label=name, linewidth=1)
    for each in (axes, *([second] if second else [])):
        each.tick_params(labelsize=7)
        each.set_ylim(0, ROOM * max(each.get_ylim()[1], 1e-9))
    axes.set_ylabel(unit, fontsize=7)
    handles = [*axes.get_legend_handles_labels()[0], *(second.get_legend_handles_labels()[0] if second else [])]
    if handles:
        axes.legend(handles=handles[:8], fontsize=6, loc="upper left", framealpha=0.5)


def draw_heatmap(axes: Axes, series: Series) -> None:
    """Draw the rate of each bucket; those of Prometheus count what is at most their bound."""
    bounds = sorted(series, key=lambda each: float(each[0]["le"]))
    times = [at for at, _ in bounds[0][1]]
    columns = [[dict(points).get(at, 0.0) for _, points in bounds] for at in times]
    buckets = [
        [max(0.0, upper - lower) for lower, upper in zip([0.0, *column], column, strict=False)] for column in columns
    ]
    minutes = [(at - times[-1]) / 60 for at in times]
    edges = [float(labels["le"]) for labels, _ in bounds if labels["le"] != "+Inf"]
    axes.pcolormesh(minutes, edges, list(zip(*(row[: len(edges)] for row in buckets), strict=True)), cmap="magma")


def draw_table(axes: Axes, panel: dict[str, Any], series: Series) -> None:
    """Draw the labels of each series, without the columns that the panel hides."""
    hidden = panel["transformations"][0]["options"]["excludeByName"]
    columns = sorted(set(series[0][0]) - set(hidden)) if series else []
    axes.axis("off")
    if columns:
        rows = [[labels[column] for column in columns] for labels, _ in series]
        shown = axes.table(rows, colLabels=columns, loc="upper center", cellLoc="left")
        shown.auto_set_font_size(False)
        shown.set_fontsize(6)
        for cell in shown.get_celld().values():
            cell.set_facecolor("#22252b")


def draw(prometheus: str, out: Path, minutes: float) -> None:
    """Draw every panel in its place."""
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
    end = time.time()
    with pyplot.style.context("dark_background"):
        figure = pyplot.figure(figsize=(15, rows * ROW_INCHES), facecolor="#111217", layout="constrained")
        grid = GridSpec(rows, 24, figure=figure)
        for panel in panels:
            place = panel["gridPos"]
            axes = figure.add_subplot(grid[place["y"] : place["y"] + place["h"], place["x"] : place["x"] + place["w"]])
            axes.set_title(panel["title"], fontsize=9, loc="left")
            axes.tick_params(labelsize=7)
            axes.set_facecolor("#181b1f")
            answers = [
                (target, ask(prometheus, target["expr"], end - 60 * minutes, end)) for target in panel["targets"]
            ]
            if not any(series for _, series in answers):
                raise SystemExit(f"the panel {panel['title']!r} is empty")
            _, first = answers[0]
            if panel["type"] == "stat":
                draw_number(axes, panel, first)
            elif panel["type"] == "heatmap":
                draw_heatmap(axes, first)
            elif panel["type"] == "table":
                draw_table(axes, panel, first)
            else:
                named = [
                    (legend_of(target, labels), points)
                    for target, series in answers
                    for labels, points in series
                    if not all(math.isnan(value) for _, value in points)
                ]
                draw_lines(axes, panel, named)
        figure.savefig(out, dpi=90)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prometheus")
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=10)
    given = parser.parse_args()
    draw(given.prometheus, given.out, given.minutes)
