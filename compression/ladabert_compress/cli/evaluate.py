"""The command ``evaluate``."""

from __future__ import annotations

import argparse
from pathlib import Path

from ladabert_compress.cli.options import (
    OneLineParser,
    add_data_options,
    add_teacher_options,
    check_folder,
    read_rows,
    teacher_source,
)


def add_evaluate(commands: argparse._SubParsersAction[OneLineParser]) -> None:
    """The command ``evaluate``."""
    parser = commands.add_parser(
        "evaluate",
        help="measure an artefact as the server would run it",
        description="Accuracy, calibration and latency of every graph of an artefact in ONNX Runtime on one thread.",
    )
    parser.add_argument("artefact", type=Path, metavar="models/NAME", help="the artefact's folder")
    add_teacher_options(parser, purpose="report the agreement with this teacher too")
    parser.add_argument(
        "--batch-invariance",
        action="store_true",
        help="also say how far scores change between a text alone, in a batch of 32, and padded to the model's limit",
    )
    parser.add_argument("--json", type=Path, metavar="F", help="also write the figures to this file")
    add_data_options(parser, data="rows to measure on")
    parser.set_defaults(run_command=_run_evaluate)


def _run_evaluate(options: argparse.Namespace) -> None:
    import json

    from ladabert_compress.files import write_text
    from ladabert_compress.report.evaluation import evaluate, format_evaluation

    check_folder("--json", options.json)
    figures = evaluate(
        options.artefact,
        read_rows(options, "data"),
        teacher_folder=None if options.teacher is None else teacher_source(options),
        batch_invariance=options.batch_invariance,
    )
    if options.json is not None:
        write_text(options.json, json.dumps(figures, indent=2) + "\n")
    print(format_evaluation(figures))  # noqa: T201
