"""The page's tables of students that learnt from texts of other kinds on a borrowed GPU; its figures are kept here."""

from collections.abc import Iterator

from benchmarks.harness.pages import table
from benchmarks.harness.results import Results, Row

HEAD = (
    *("student", "texts", "peak rate", "held-out: KL", "dev: agreement, KL", "dev accuracy, over the teacher's"),
    "elsewhere: products, tweets, editorials, all",
)
NEWS_HEAD = ("rows of train", "dev accuracy, over the teacher's", "agreement, KL")


def sections(results: Results) -> dict[str, str]:
    """Return the table of the SST-2 students and that of AG News."""
    (teacher,) = results.rows("teachers", weights="average")
    students = (_student(row, teacher["dev_accuracy"]) for row in results.rows("students"))
    return {
        "frontier-texts": table(HEAD, students),
        "frontier-labels": table(NEWS_HEAD, _news(results)),
    }


def _student(row: Row, teacher_accuracy: float) -> list[str]:
    texts = "phrases, news" if row["unlabelled"] else "phrases"
    replaced = f", {100 * row['replaced_share']:g} % of words replaced" if row["replaced_share"] else ""
    return [
        row["student"],
        texts + replaced,
        f"{row['rate']:g}",
        f"{row['held_out_divergence']:.4f}",
        f"{100 * row['agreement']:.1f}, {row['divergence']:.3f}",
        f"{100 * row['accuracy']:.1f}, {100 * row['accuracy'] / teacher_accuracy:.1f}",
        ", ".join(f"{100 * row[name]:.1f}" for name in ("products", "tweets", "editorials", "elsewhere")),
    ]


def _news(results: Results) -> Iterator[list[str]]:
    for row in results.rows("agnews"):
        share = 100 * row["accuracy"] / row["teacher_accuracy"]
        yield [
            row["rows"],
            f"{100 * row['accuracy']:.2f}, {share:.2f}",
            f"{100 * row['agreement']:.1f}, {row['divergence']:.3f}",
        ]
