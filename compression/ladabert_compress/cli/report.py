"""The command ``report``."""

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


def add_report(commands: argparse._SubParsersAction[OneLineParser]) -> None:
    """The command ``report``."""
    parser = commands.add_parser(
        "report",
        help="one page about runs and artefacts",
        description="One self-contained HTML page: learning curves, accuracy against size and against latency, ranks "
        "and non-zeros per layer, predictions and their confidence. A run and an artefact of one name are one student.",
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="runs/NAME or models/NAME, or both")
    parser.add_argument("--out", required=True, type=Path, metavar="F.html", help="the page")
    add_teacher_options(
        parser,
        purpose="measure the latency of this teacher and the artefacts side by side, and with --data list the rows on "
        "which they differ most",
    )
    purpose = "rows to measure the artefacts on (default: what each run stored of its dev rows)"
    add_data_options(parser, required=False, data=purpose)
    parser.set_defaults(run_command=_run_report)


def _run_report(options: argparse.Namespace) -> None:
    from ladabert_compress.report.page import write_report

    check_folder("--out", options.out)
    texts = None if options.data is None else read_rows(options, "data")
    teacher = None if options.teacher is None else teacher_source(options)
    write_report(options.runs, options.out, texts=texts, teacher_folder=teacher)
    print(f"{options.out}: {options.out.stat().st_size / 1024:.0f} KB")  # noqa: T201
