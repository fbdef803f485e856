"""The chart of the README: accuracy against milliseconds, of the teacher and its students, and its caption."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.harness.plots import IMAGES, THEMES, Theme, new_figure, save_in_theme
from benchmarks.harness.results import REPOSITORY, Results, Row

SHAPE = {"batch": 1, "tokens": 64}
SIZE_INCHES = (7.2, 3.6)


@dataclass(frozen=True)
class Point:
    """A model of the chart: its name there, its median milliseconds and its accuracy in per cent."""

    title: str
    median_ms: float
    accuracy: float
    is_teacher: bool = False


def points(results: Results) -> list[Point]:
    """Return the teacher in ONNX Runtime (fp32) and each student that was asked over HTTP."""
    asked = results.rows("http")
    (teacher,) = results.rows("times", **SHAPE, name=results.settings["baseline"])
    return [
        Point("teacher", teacher["median_ms"], 100 * asked[0]["teacher_accuracy"], is_teacher=True),
        *(_student(results, answer) for answer in asked),
    ]


def draw(results: Results) -> None:
    """Write the chart for light and for dark pages; nothing where no student was asked over HTTP."""
    if not results.rows("http"):
        return
    for theme in THEMES:
        _draw(points(results), theme)


def caption(results: Results) -> str:
    """Return what the chart shows, where the figures come from, and what the smallest student keeps."""
    asked = results.rows("http")
    rows, teacher = asked[0]["rows"], asked[0]["teacher_accuracy"]
    error = 100 * math.sqrt(teacher * (1 - teacher) / rows)
    origin = results.origin
    commit = f"commit {origin['commit']}" if origin["commit"] else "commit not recorded"
    (first, *students) = points(results)
    fastest = min(students, key=lambda point: point.median_ms)
    return (
        f"*Accuracy: {rows} rows of SST-2 dev (standard error: {error:.1f} points). Time: one text of "
        f"{SHAPE['tokens']} tokens on {_threads(results)} in ONNX Runtime, median of "
        f"{results.settings['repeats']} rounds in which every model takes its turn. Students are int8 and answered "
        f"over HTTP. The teacher is fp32, its graph optimised by ONNX Runtime's own tool, and its answers come from "
        f"PyTorch. "
        f"{origin['machine']}, onnxruntime {origin['versions']['onnxruntime']}, {commit}.*\n\n"
        f"The fastest student ({fastest.title}) takes {fastest.median_ms:.1f} ms where the teacher takes "
        f"{first.median_ms:.1f} ms, and keeps {100 * fastest.accuracy / first.accuracy:.1f} % of its accuracy.\n"
    )


def _student(results: Results, answer: Row) -> Point:
    name = answer["model"]
    (time,) = results.rows("times", **SHAPE, name=f"{name} int8")
    manifest = json.loads((REPOSITORY / "models" / name / "manifest.json").read_text(encoding="utf-8"))
    made = manifest["compression"]
    title = f"×{made['reached_ratio']:.2g}"
    if made["recipe"]["budget"].get("objective") == "latency":
        title += ", for latency"
    return Point(title, time["median_ms"], 100 * answer["accuracy"])


def _threads(results: Results) -> str:
    count = results.settings["threads"]
    return "one thread" if count == 1 else f"{count} threads"


def _draw(shown: list[Point], theme: Theme) -> None:
    figure, grid = new_figure(*SIZE_INCHES)
    axes = grid[0][0]
    axes.set_xscale("log")
    ticks = list(_powers_of_two(min(point.median_ms for point in shown), max(point.median_ms for point in shown)))
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    for point in shown:
        colour = theme.teacher if point.is_teacher else theme.student
        axes.plot([point.median_ms], [point.accuracy], marker="o", markersize=8, color=colour)
        axes.annotate(
            point.title, (point.median_ms, point.accuracy), (7, 5), textcoords="offset points", color=theme.text
        )
    axes.margins(x=0.12, y=0.2)
    axes.set_xlabel("milliseconds, log scale (left is faster)")
    axes.set_ylabel("accuracy, % (not from 0)")
    save_in_theme(figure, IMAGES / f"students-{theme.name}.svg", theme)


def _powers_of_two(least: float, most: float) -> Iterator[float]:
    """Yield the powers of two from the one below `least` to the one above `most`."""
    for exponent in range(math.floor(math.log2(least)), math.ceil(math.log2(most)) + 1):
        yield 2.0**exponent
