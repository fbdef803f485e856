"""The chart of the alternatives: agreement with the teacher against milliseconds, and against bytes."""

import math

from benchmarks.harness.plots import IMAGES, THEMES, Theme, new_figure, save_in_theme
from benchmarks.harness.results import Results, Row

SIZE_INCHES = (7.2, 8.4)
SHAPE = [1, 64]
OURS = "`sst2-"
LEAST_AGREEMENT = 0.9  # what agrees less often is in the table alone, so that the others can be told apart
SMALL = 7  # points, of a label
HEIGHTS = (3, -9, 13, -19)  # points above a dot, of its label and of those of its neighbours
NEAR_COST, NEAR_AGREEMENT = 1.3, 0.25  # doublings, and per cent


def draw_all(results: Results) -> None:
    """Write the chart for light and for dark pages."""
    for theme in THEMES:
        _draw(results, theme)


def _draw(results: Results, theme: Theme) -> None:
    place = results.settings["shapes"].index(SHAPE)
    shown = [row for row in results.rows("alternatives") if row["agreement"] >= LEAST_AGREEMENT]
    figure, grid = new_figure(*SIZE_INCHES, rows=2)
    panels = (
        ("CPU milliseconds of one text of 64 tokens, log scale", [row["cpu_ms"][place] for row in shown]),
        ("megabytes on disk, log scale", [row["stored_bytes"] / 1e6 for row in shown]),
    )
    for axes, (title, costs) in zip(grid[:, 0], panels, strict=True):
        axes.set_xscale("log")
        labelled: list[tuple[float, float]] = []
        for cost, row in sorted(zip(costs, shown, strict=True), key=lambda pair: pair[0]):
            agreement, colour = 100 * row["agreement"], theme.student if _is_ours(row) else theme.teacher
            axes.plot([cost], [agreement], marker="o" if _is_ours(row) else "s", markersize=6, color=colour)
            near = 0
            if not _is_ours(row):
                near = sum(_is_near(one, (cost, agreement)) for one in labelled)
                labelled.append((cost, agreement))
            axes.annotate(
                row["name"].replace("`", "").removesuffix(", int8"),
                (cost, agreement),
                (5 if _is_ours(row) else -5, HEIGHTS[near % len(HEIGHTS)]),
                textcoords="offset points",
                ha="left" if _is_ours(row) else "right",
                color=theme.text,
                fontsize=SMALL,
            )
        ticks = [tick for tick in (0.5, 1, 2, 4, 8, 16, 32, 64, 128) if min(costs) / 2 <= tick <= 2 * max(costs)]
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
        axes.margins(x=0.22, y=0.1)
        axes.set_xlabel(f"{title} (left is better)")
        axes.set_ylabel("the teacher's label, % of dev (not from 0)")
    save_in_theme(figure, IMAGES / f"alternatives-{theme.name}.svg", theme)


def _is_near(one: tuple[float, float], other: tuple[float, float]) -> bool:
    """Return whether the labels of two points (cost, agreement) would lie on each other."""
    return abs(math.log2(one[0] / other[0])) < NEAR_COST and abs(one[1] - other[1]) < NEAR_AGREEMENT


def _is_ours(row: Row) -> bool:
    name: str = row["name"]
    return name.startswith(OURS) and "teacher" not in name
