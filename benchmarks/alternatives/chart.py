"""The chart of the alternatives: agreement with the teacher against milliseconds, and against bytes."""

from benchmarks.harness.plots import IMAGES, THEMES, Theme, new_figure, save_in_theme
from benchmarks.harness.results import Results, Row

SIZE_INCHES = (7.2, 8.4)
SHAPE = [1, 64]
OURS = "`sst2-"
LEAST_AGREEMENT = 0.9  # what agrees less often is in the table alone, so that the others can be told apart
SMALL = 7  # points, of a label


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
        for row, cost in zip(shown, costs, strict=True):
            agreement, colour = 100 * row["agreement"], theme.student if _is_ours(row) else theme.teacher
            axes.plot([cost], [agreement], marker="o" if _is_ours(row) else "s", markersize=6, color=colour)
            label = row["name"].replace("`", "").removesuffix(", int8")
            axes.annotate(
                label, (cost, agreement), (5, 4), textcoords="offset points", color=theme.text, fontsize=SMALL
            )
        ticks = [tick for tick in (0.5, 1, 2, 4, 8, 16, 32, 64, 128) if min(costs) / 2 <= tick <= 2 * max(costs)]
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
        axes.margins(x=0.15, y=0.1)
        axes.set_xlabel(f"{title} (left is better)")
        axes.set_ylabel("the teacher's label, % of dev (not from 0)")
    save_in_theme(figure, IMAGES / f"alternatives-{theme.name}.svg", theme)


def _is_ours(row: Row) -> bool:
    name: str = row["name"]
    return name.startswith(OURS) and "teacher" not in name
