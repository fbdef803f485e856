"""The command ``cascade``."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from ladabert_compress.cli.options import (
    OneLineParser,
    add_data_options,
    data_set_name,
    next_step,
    read_rows,
    read_texts_if_given,
    whole,
)
from ladabert_compress.data.labels import label_ids_of
from ladabert_compress.data.texts import Texts
from ladabert_compress.errors import DataError

MEASURES = ("agreement", "accuracy", "latency-ms", "escalated")


def add_cascade(commands: argparse._SubParsersAction[OneLineParser]) -> None:
    """The command ``cascade``."""
    parser = commands.add_parser(
        "cascade",
        help="make one model of several artefacts, of which the slower ones are asked where the faster are not sure",
        description="Runs the artefacts on rows, chooses on one half of them from which score on an answer is good "
        "enough, and reports on the other half. The result is a folder beside the artefacts, which a server serves.",
    )
    parser.add_argument(
        "--stages",
        required=True,
        nargs="+",
        type=Path,
        metavar="models/NAME",
        help="artefacts of one task and the same labels, in the order in which they are asked: the fastest first",
    )
    parser.add_argument("--out", required=True, type=Path, metavar="models/NAME", help="cascade to write")
    parser.add_argument(
        "--target",
        required=True,
        type=_target,
        metavar="MEASURE=VALUE",
        help="what to reach as cheaply as possible: agreement=0.99 with the last stage, or accuracy=0.9; or what to "
        "spend on as much agreement as possible: latency-ms=1.2 of a text on average, or escalated=0.15 of the texts",
    )
    parser.add_argument(
        "--measure",
        choices=("score", "margin"),
        default="score",
        help="what makes an answer good enough: the best label's score, or its distance to the second one's "
        "(default %(default)s)",
    )
    parser.add_argument(
        "--confidence",
        type=_confidence,
        default=0.95,
        help="probability with which as many other rows meet the target, too (default %(default)g)",
    )
    parser.add_argument("--seed", type=whole, default=0, help="of the two halves (default %(default)s)")
    add_data_options(parser, data="rows like those to be served; labels are needed for accuracy only")
    parser.set_defaults(run_command=_run_cascade)


def _run_cascade(options: argparse.Namespace) -> None:
    from ladabert_compress.artefact.cascade import read_stages, write_cascade
    from ladabert_compress.artefact.writing import check_out

    check_out(options.out)
    stages = read_stages(options.stages, options.out)
    measure, value = options.target
    rows = _read(options, stages[-1].manifest["labels"], labelled=measure == "accuracy")

    # PyTorch takes seconds to load: only now that options, stages and rows are right.
    from ladabert_compress.search.cascade import cascade, format_cascade
    from ladabert_compress.search.thresholds import Target

    manifest, choice = cascade(
        stages,
        rows,
        Target(measure, value),
        name=options.out.name,
        data_set=data_set_name(options.data),
        measure=options.measure,
        confidence=options.confidence,
        seed=options.seed,
    )
    write_cascade(options.out, manifest)
    print(format_cascade(manifest, choice, options.confidence))  # noqa: T201
    print(next_step("ladabert-serve", "--models", options.out.parent, "--default-model", options.out.name))  # noqa: T201


def _read(options: argparse.Namespace, names: Sequence[str], *, labelled: bool) -> Texts:
    """The rows, with labels where they are needed, named, or found and those of the stages."""
    if labelled or options.label is not None:
        return read_rows(options, "data")
    refused = None
    if Path(options.data).suffix.lower() != ".txt":
        try:
            rows = read_rows(options, "data")
            label_ids_of("--data", rows, names)
        except DataError as error:
            refused = error
        else:
            return rows
    texts = read_texts_if_given(options, "data")
    assert texts is not None
    if refused is not None:
        print(f"the rows are read without labels: {refused}", file=sys.stderr)  # noqa: T201
    return texts


def _target(text: str) -> tuple[str, float]:
    measure, _, number = text.partition("=")
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if measure not in MEASURES or not (0 < value < (math.inf if measure == "latency-ms" else 1)):
        raise argparse.ArgumentTypeError(
            f"{text!r}: expected agreement=, accuracy= or escalated= with a share between 0 and 1, "
            "or latency-ms= with milliseconds, such as agreement=0.99"
        )
    return measure, value


def _confidence(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0.5 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number from 0.5 to below 1, such as 0.95")
    return value
