"""The pages' tables of teachers and students that a program of its own trained on a GPU; its figures are kept here."""

from collections.abc import Iterable, Iterator, Sequence
from statistics import mean

from benchmarks.harness.pages import MISSING, table
from benchmarks.harness.results import Results, Row

PLAIN, R_DROP, SMOOTHING = "plain", "R-Drop 4", "label smoothing 0.1"
DENSE, TENTH = "three layers, dense, 17.4 M", "six layers, ×10, 2.27 M non-zero"
STUDENT_HEAD = (
    *("student", "text", "peak rate", "losses"),
    *("held-out: agreement, KL", "dev: agreement, KL, accuracy", "elsewhere: agreement"),
)
BITS = {None: "fp32", 127: "8 bits (127 steps a side)", 63: "7 bits (63)", 31: "6 bits (31)"}


def sections(results: Results) -> dict[str, str]:
    """Return the tables of teachers, students, joined text, weights of few bits and a trimmed vocabulary."""
    students = results.rows("students")
    finished = [row for row in students if row["step"] == row["steps"]]
    halfway = [row for row in students if 2 * row["step"] == row["steps"] and row["student"] in (DENSE, TENTH)]
    return {
        "frontier-gains": table(["teacher", "seeds", "dev accuracy, mean", "over plain, points"], _gains(results)),
        "frontier-teachers": table(
            [
                "rows of train",
                "with",
                "passes, peak rate",
                "seeds",
                "held-out: accuracy, NLL",
                "dev accuracy",
                "elsewhere",
            ],
            _teachers(results),
        ),
        "frontier-students": table(STUDENT_HEAD, map(_student, finished)),
        "frontier-joined": table(STUDENT_HEAD, map(_student, halfway)),
        "frontier-joined-gains": table(
            ["peak rate", "losses", "held-out", "dev", "elsewhere"], map(_joined_gain, *_joined_and_not(halfway))
        ),
        "frontier-differences": table(
            ["student", "rows with another label", "of these, teacher unsure", "agreement where the teacher is sure"],
            map(_differences, results.rows("differing_rows")),
        ),
        "frontier-bits": table(["student", *BITS.values()], _bits(results)),
        "frontier-quantisation-aware": table(
            ["weights", "activations", "held-out: agreement, KL", "dev: agreement", "after 800 steps: held-out", "dev"],
            _quantisation_aware(results),
        ),
        "frontier-vocabulary": table(
            ["student", "dev: all words", "words of train alone", "elsewhere: all words", "words of train alone"],
            map(_vocabulary, _best(finished)),
        ),
    }


def _rate(value: float) -> str:
    return f"{value:g}" if value >= 0.001 else f"{value:.0e}".replace("e-0", "e-")


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _finished(results: Results, **wanted: object) -> list[Row]:
    return [row for row in results.rows("teachers", **wanted) if row["step"] == row["steps"]]


def _gains(results: Results) -> Iterator[list[object]]:
    """Yield like beside like: the peak rate of 5e-5, and for plain training every run of one or two passes."""
    plain = [row for row in _finished(results, variant=PLAIN, rate=5e-5) if row["passes"] <= 2]
    floor = mean(row["dev_accuracy"] for row in plain)
    yield ["plain, 1 and 2 passes", len(plain), _percent(floor), MISSING]
    for name, passes in ((SMOOTHING, 2), (R_DROP, 3)):
        rows = _finished(results, variant=name, rate=5e-5)
        found = mean(row["dev_accuracy"] for row in rows)
        yield [f"{name}, {passes} passes", len(rows), _percent(found), f"{100 * (found - floor):+.2f}"]


def _teachers(results: Results) -> Iterator[list[str]]:
    groups: dict[tuple[str, str, float, float, float], list[Row]] = {}
    for row in results.rows("teachers"):
        key = (row["rows"], row["variant"], row["passes"], row["rate"], row["step"] / row["steps"])
        groups.setdefault(key, []).append(row)
    for (rows, variant, passes, rate, share), runs in groups.items():
        held_out = MISSING
        if runs[0]["held_out_accuracy"] is not None:
            accuracy, loss = (mean(run[name] for run in runs) for name in ("held_out_accuracy", "held_out_nll"))
            held_out = f"{_percent(accuracy)}, {loss:.3f}"
        each = " ".join(_percent(run["dev_accuracy"]) for run in runs)
        dev = f"{_percent(mean(run['dev_accuracy'] for run in runs))} ({each})"
        far = [run["elsewhere_accuracy"] for run in runs]
        elsewhere = MISSING if None in far else _percent(mean(far))
        steps = f"{passes:g}{'' if share == 1 else ', stopped halfway'}, {_rate(rate)}"
        yield [rows, variant, steps, str(len(runs)), held_out, dev, elsewhere]
    for row in results.rows("ensemble"):
        figures = [_percent(row["dev_accuracy"]), _percent(row["elsewhere_accuracy"])]
        yield ["all", row["variant"], MISSING, str(row["teachers"]), MISSING, *figures]


def _student(row: Row) -> list[str]:
    return [
        row["student"],
        "half joined" if row["joined"] else "as it is",
        _rate(row["rate"]),
        row["losses"],
        f"{_percent(row['held_out_agreement'])}, {row['held_out_kl']:.3f}",
        f"{_percent(row['dev_agreement'])}, {row['dev_kl']:.3f}, {_percent(row['dev_accuracy'])}",
        _percent(row["elsewhere_agreement"]),
    ]


def _joined_and_not(rows: Iterable[Row]) -> tuple[list[Row], list[Row]]:
    """Return the rows of runs with joined text, and of the runs that differ from them in nothing else."""

    def key(row: Row) -> tuple[object, ...]:
        return tuple(row[name] for name in ("student", "rate", "losses", "step"))

    rows = list(rows)
    plain = {key(row): row for row in rows if not row["joined"]}
    joined = [row for row in rows if row["joined"] and key(row) in plain]
    return joined, [plain[key(row)] for row in joined]


def _joined_gain(joined: Row, plain: Row) -> list[str]:
    names = ("held_out_agreement", "dev_agreement", "elsewhere_agreement")
    changes = (f"{_percent(plain[name])} → {_percent(joined[name])}" for name in names)
    return [_rate(joined["rate"]), joined["losses"], *changes]


def _differences(row: Row) -> list[str]:
    return [
        row["student"],
        str(row["rows"]),
        f"{100 * row['unsure_share']:.0f} %",
        _percent(row["agreement_elsewhere"]),
    ]


def _bits(results: Results) -> Iterator[list[str]]:
    for student in results.names("rounded_weights", "student"):
        rows = [results.rows("rounded_weights", student=student, weight_steps=steps)[0] for steps in BITS]
        yield [student, *(f"{_percent(row['dev_agreement'])}, {_percent(row['dev_accuracy'])}" for row in rows)]


def _quantisation_aware(results: Results) -> Iterator[list[str]]:
    for before in results.rows("quantisation_aware", step=0):
        same = {name: before[name] for name in ("weight_steps", "activation_bits")}
        (after,) = results.rows("quantisation_aware", step=before["steps"], **same)
        yield [
            BITS[before["weight_steps"]],
            "fp32" if before["activation_bits"] is None else f"{before['activation_bits']} bits, fixed",
            *_agreement(before),
            *_agreement(after),
        ]


def _agreement(row: Row) -> Sequence[str]:
    return f"{_percent(row['held_out_agreement'])}, {row['held_out_kl']:.3f}", _percent(row["dev_agreement"])


def _best(rows: Iterable[Row]) -> list[Row]:
    """Return of each student the finished run with the highest agreement on the held-out rows."""
    best: dict[str, Row] = {}
    for row in rows:
        if row["student"] not in best or row["held_out_agreement"] > best[row["student"]]["held_out_agreement"]:
            best[row["student"]] = row
    return list(best.values())


def _vocabulary(row: Row) -> list[str]:
    names = ("dev_agreement", "dev_agreement_train_words", "elsewhere_agreement", "elsewhere_agreement_train_words")
    return [f"{row['student']}, {row['losses']}, {_rate(row['rate'])}", *(_percent(row[name]) for name in names)]
