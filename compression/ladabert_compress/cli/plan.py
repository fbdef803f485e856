"""The command ``plan``."""

from __future__ import annotations

import argparse
from pathlib import Path

from ladabert_compress.cli.options import (
    OneLineParser,
    add_data_options,
    add_teacher_options,
    check_folder,
    next_step,
    positive_number,
    read_texts_if_given,
    teacher_source,
)
from ladabert_compress.recipe import bundled_recipes

COMPARED = tuple(name for name in bundled_recipes() if not name.startswith("ladabert-"))


def add_plan(commands: argparse._SubParsersAction[OneLineParser]) -> None:
    """The command ``plan``."""
    parser = commands.add_parser(
        "plan",
        help="say what each recipe would make of a teacher, before anything is trained",
        description="Parameters, non-zeros, bytes and milliseconds of each recipe's student, measured on random "
        "weights on this machine, and with --train how long its training takes here. Says which recipe to take for a "
        "limit on bytes or milliseconds. Run it on an otherwise idle machine.",
    )
    add_teacher_options(parser, required=True, purpose="the fine-tuned classifier")
    parser.add_argument(
        "--recipe",
        action="append",
        metavar="NAME|R.toml",
        help=f"a recipe to look at; may be given several times (default: {', '.join(COMPARED)})",
    )
    parser.add_argument("--max-mb", type=positive_number, metavar="MB", help="largest graph on disk, in 10^6 bytes")
    parser.add_argument(
        "--max-ms", type=positive_number, metavar="MS", help="longest time of one text of 64 tokens on one thread"
    )
    parser.add_argument(
        "--task", choices=("single", "pair"), default="single", help="without --train (default %(default)s)"
    )
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="to train on (default %(default)s)"
    )
    parser.add_argument("--json", type=Path, metavar="F", help="also write the figures to this file")
    add_data_options(parser, required=False, train="rows to train on; they need no labels here")
    parser.set_defaults(run_command=_run_plan)


def _run_plan(options: argparse.Namespace) -> None:
    import json

    check_folder("--json", options.json)
    rows = read_texts_if_given(options, "train")

    # PyTorch takes seconds to load: only now that options and rows are right.
    from ladabert_compress.files import write_text
    from ladabert_compress.search.plan import format_plan, plan, plan_to_dict, recommend
    from ladabert_compress.teacher.folder import load_teacher
    from ladabert_compress.training.device import choose_device

    found = plan(
        load_teacher(teacher_source(options)),
        options.recipe or COMPARED,
        rows,
        device=choose_device(options.device),
        task=options.task if rows is None else rows.task,
    )
    max_bytes = None if options.max_mb is None else 1e6 * options.max_mb
    chosen = recommend(found.students, max_bytes, options.max_ms)
    if options.json is not None:
        write_text(options.json, json.dumps(plan_to_dict(found, chosen), indent=2) + "\n")
    print(format_plan(found))  # noqa: T201
    command = ["ladabert-compress", "compress", "--teacher", options.teacher]
    rest = ["--train", options.train or "F", "--out", "models/NAME"]
    if chosen is not None:
        print(f"take {chosen.recipe}")  # noqa: T201
        print(next_step(*command, "--recipe", chosen.recipe, *rest))  # noqa: T201
    elif options.max_ms is not None:
        print("none is within the limits; the largest student within a time is found by measuring:")  # noqa: T201
        print(next_step(*command, "--target-latency-ms", f"{options.max_ms:g}", *rest))  # noqa: T201
    else:
        print("none is within the limits; --ratio makes smaller ones:")  # noqa: T201
        ratio = max(student.ratio for student in found.students)
        print(next_step(*command, "--ratio", f"{1.25 * ratio:.0f}", *rest))  # noqa: T201
