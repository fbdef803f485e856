"""The page's tables of teachers and students that our own code trained on a borrowed GPU; its figures are kept here."""

from collections.abc import Iterator
from statistics import mean

from benchmarks.harness.pages import table
from benchmarks.harness.results import Results, Row

TEACHER_HEAD = ("R-Drop", "runs", "held-out accuracy: mean of runs, of their average", "dev accuracy: the same")
STUDENT_HEAD = (
    *("student", "non-zero parameters", "peak rate", "dev: agreement, KL", "dev accuracy, over the teacher's"),
    "bundled by then: agreement, over the teacher's",
)


def sections(results: Results) -> dict[str, str]:
    """Return the tables of teachers and of students."""
    (teacher,) = results.rows("teachers", weights="average", r_drop=4)
    return {
        "frontier-averages": table(TEACHER_HEAD, _teachers(results)),
        "frontier-levers": table(
            STUDENT_HEAD, (_student(row, teacher["dev_accuracy"]) for row in results.rows("students"))
        ),
    }


def _teachers(results: Results) -> Iterator[list[str]]:
    for average in results.rows("teachers", weights="average"):
        runs = results.rows("teachers", weights="run", r_drop=average["r_drop"])
        found = (
            f"{100 * mean(run[name] for run in runs):.1f}, {100 * average[name]:.1f}"
            for name in ("held_out_accuracy", "dev_accuracy")
        )
        yield [f"{average['r_drop']}", f"{len(runs)}", *found]


def _student(row: Row, teacher_accuracy: float) -> list[str]:
    before = row["bundled"]
    return [
        row["student"],
        f"{row['nonzero_parameters']:,}",
        f"{row['rate']:g}",
        f"{100 * row['agreement']:.1f}, {row['divergence']:.3f}",
        f"{100 * row['accuracy']:.1f}, {100 * row['accuracy'] / teacher_accuracy:.1f}",
        "–" if before is None else f"{100 * before[0]:.1f}, {100 * before[1]:.1f}",
    ]
