"""The command ``bench``."""

from __future__ import annotations

import argparse
from pathlib import Path

from ladabert_compress.cli.options import OneLineParser, add_teacher_options, check_folder, positive, teacher_source

DEFAULT_SHAPES = "1x16,1x64,8x32,32x16"


def add_bench(commands: argparse._SubParsersAction[OneLineParser]) -> None:
    """The command ``bench``."""
    parser = commands.add_parser(
        "bench",
        help="time artefacts, ONNX files, a teacher and the standard tools side by side",
        description="Median milliseconds on one thread, all taking turns in one run, and how many times as fast as the "
        "baseline each is. Compare figures within a run, never between two.",
    )
    parser.add_argument("subjects", nargs="*", type=Path, metavar="models/NAME|F.onnx", help="what to time")
    add_teacher_options(parser, purpose="time this teacher in PyTorch and in ONNX Runtime as well")
    parser.add_argument(
        "--standard-tools",
        type=Path,
        action="append",
        default=[],
        metavar="runs/NAME",
        help="time what onnxruntime.transformers.optimizer and quantize_dynamic make of this run's student as well",
    )
    parser.add_argument("--task", choices=("single", "pair"), default="single", help="of teacher and runs")
    parser.add_argument(
        "--shapes", type=shapes, default=DEFAULT_SHAPES, metavar="BxT,…", help="texts x tokens (default %(default)s)"
    )
    parser.add_argument("--repeats", type=positive, default=20, help="rounds (default %(default)s)")
    parser.add_argument("--baseline", default="", metavar="NAME", help="as the table names it (default: its first row)")
    parser.add_argument("--profile", action="store_true", help="also say which operators the time goes to")
    parser.add_argument("--json", type=Path, metavar="F", help="also write the figures to this file")
    parser.add_argument("--plot", type=Path, metavar="F.svg", help="also draw them")
    parser.set_defaults(run_command=_run_bench)


def shapes(text: str) -> tuple[tuple[int, int], ...]:
    """`1x16,8x32` → ((1, 16), (8, 32))."""
    parts = [part.split("x") for part in text.split(",")]
    if not all(len(part) == 2 and all(number.isdecimal() and int(number) for number in part) for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r}: expected texts x tokens, such as 1x16,8x32")
    return tuple((int(batch), int(tokens)) for batch, tokens in parts)


def _run_bench(options: argparse.Namespace) -> None:
    import json

    from ladabert_compress.errors import OptionError
    from ladabert_compress.report.bench import bench, format_bench, standard_subject, subjects_of, teacher_subjects
    from ladabert_compress.report.plots import plot_bench

    check_folder("--json", options.json)
    check_folder("--plot", options.plot)
    subjects = [] if options.teacher is None else teacher_subjects(teacher_source(options), options.task)
    subjects += [standard_subject(folder, options.task) for folder in options.standard_tools]
    subjects += [subject for path in options.subjects for subject in subjects_of(path)]
    if not subjects:
        raise OptionError("nothing to measure: name an artefact, an .onnx file, --teacher or --standard-tools")
    figures = bench(
        subjects, options.shapes, baseline=options.baseline, repeats=options.repeats, profile=options.profile
    )
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    if options.plot is not None:
        options.plot.write_text(plot_bench(figures), encoding="utf-8")
    print(format_bench(figures))  # noqa: T201
