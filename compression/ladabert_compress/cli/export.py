"""The command ``export``."""

from __future__ import annotations

import argparse
from pathlib import Path

from ladabert_compress.cli.options import (
    OneLineParser,
    add_data_options,
    add_teacher_options,
    data_set_name,
    positive,
    read_rows_if_given,
    read_unlabelled,
    teacher_source,
)
from ladabert_compress.errors import OptionError
from ladabert_compress.recipe import ExportRecipe, recipe_choices, recipe_fields

GUARDS = "export."


def add_export(commands: argparse._SubParsersAction[OneLineParser]) -> None:
    """The command ``export``."""
    parser = commands.add_parser(
        "export",
        help="export a teacher as it is, in fp32 and int8",
        description="Writes the teacher itself as an artefact, not compressed: what its students are compared with, or "
        "the last stage of a cascade. Rows give the ranges of int8 and the figures; the checks are those of a student.",
    )
    add_teacher_options(parser, required=True, purpose="the fine-tuned classifier")
    parser.add_argument("--out", required=True, type=Path, metavar="models/NAME", help="artefact to write")
    parser.add_argument(
        "--precisions", choices=("both", "int8", "fp32"), default="both", help="graphs to write (default %(default)s)"
    )
    parser.add_argument("--max-length", type=positive, default=128, help="tokens a row (default %(default)s)")
    add_data_options(
        parser,
        required=False,
        train="rows for the ranges of int8 and the temperature",
        dev="rows to report on (default: held out of --train, else of --unlabelled, where the teacher labels them)",
    ).add_argument(
        "--unlabelled",
        nargs="+",
        metavar="F",
        help="rows without labels, beside or instead of --train: tables, or .txt with one text a line",
    )
    guards = parser.add_argument_group("guards", "as in a recipe")
    for name, kind, description in recipe_fields():
        if name.startswith(GUARDS):
            option = "--" + name.removeprefix(GUARDS).replace("_", "-")
            guards.add_argument(
                option,
                type=kind,
                choices=recipe_choices(name),
                metavar=None if recipe_choices(name) else kind.__name__.upper(),
                help=f"{name}: {description}",
            )
    parser.set_defaults(run_command=_run_export)


def _run_export(options: argparse.Namespace) -> None:
    import torch

    from ladabert_compress.artefact.export import export_artefact
    from ladabert_compress.artefact.manifest import format_manifest
    from ladabert_compress.artefact.writing import check_out
    from ladabert_compress.teacher.check import check_teacher
    from ladabert_compress.training.rows import Sources
    from ladabert_compress.training.uncompressed import take_teacher

    check_out(options.out)
    if options.train is None and options.unlabelled is None:
        raise OptionError("no rows to measure on; name them with --train, --unlabelled or both")
    names = [name.removeprefix(GUARDS) for name, _, _ in recipe_fields() if name.startswith(GUARDS)]
    guards = ExportRecipe(**{name: vars(options)[name] for name in names if vars(options)[name] is not None})
    teacher, dev_texts = teacher_source(options), read_rows_if_given(options, "dev")
    sources = Sources(read_rows_if_given(options, "train"), dev_texts, read_unlabelled(options))
    if dev_texts is not None:
        check_teacher(teacher, dev_texts, options.max_length, torch.device("cpu"))
    manifest = export_artefact(
        take_teacher(teacher, sources, max_length=options.max_length, guards=guards),
        options.out,
        data_set=data_set_name(options.dev or options.train or options.unlabelled[0]),
        split="held-out" if options.dev is None else "dev",
        precisions=("int8", "fp32") if options.precisions == "both" else (options.precisions,),
    )
    print(format_manifest(manifest))  # noqa: T201
