"""The command ``compress``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ladabert_compress.cli.options import (
    OneLineParser,
    add_data_options,
    add_run_options,
    add_teacher_options,
    data_set_name,
    names,
    next_step,
    positive,
    positive_number,
    read_rows_if_given,
    read_unlabelled,
    teacher_source,
    whole,
)
from ladabert_compress.data.texts import Texts
from ladabert_compress.errors import OptionError
from ladabert_compress.recipe import Recipe, default_recipe, load_recipe, recipe_choices, recipe_fields

if TYPE_CHECKING:  # PyTorch is loaded by the command that needs it, so that --help is quick
    from ladabert_compress.training.run import FindRatio


def add_compress(commands: argparse._SubParsersAction[OneLineParser]) -> None:
    """The command ``compress``; every key of a recipe is an option."""
    parser = commands.add_parser(
        "compress",
        help="compress a teacher into a student and export it",
        description="The LadaBERT run: factorise and prune a little, distil, repeat; then export to ONNX, compare "
        "with PyTorch, and write the artefact. Every key of the recipe can be overridden.",
    )
    add_teacher_options(parser, required=True, purpose="the fine-tuned classifier")
    parser.add_argument(
        "--label-names",
        type=names,
        default=(),
        metavar="A,B,…",
        help="names of the teacher's labels in the order of its logits, in the place of LABEL_0, LABEL_1, …",
    )
    parser.add_argument(
        "--recipe",
        metavar="NAME|R.toml",
        help="the run's settings, by the name of a bundled recipe or as a file (default: best-x2.5 to best-x10, "
        "whichever is made for the ratio nearest to --ratio, latency-x4.7 with --target-latency-ms, else best-x5)",
    )
    parser.add_argument("--out", required=True, type=Path, metavar="models/NAME", help="artefact to write")
    parser.add_argument(
        "--run", type=Path, metavar="DIR", help="folder for checkpoint, history and PyTorch student (default runs/NAME)"
    )
    parser.add_argument(
        "--precisions", choices=("both", "int8", "fp32"), default="both", help="graphs to write (default %(default)s)"
    )
    parser.add_argument(
        "--target",
        choices=("cpu", "cuda"),
        default="cpu",
        help="what the graphs are to be fast on: cpu measures candidates on this machine, cuda follows a rule and "
        "writes fp32 and fp16 (default %(default)s)",
    )
    parser.add_argument(
        "--dev-rows",
        type=positive,
        default=1000,
        metavar="N",
        help="rows, at most a tenth, that are held out where there is no --dev (default %(default)s)",
    )
    parser.add_argument(
        "--calibration-rows",
        type=whole,
        default=1000,
        metavar="N",
        help="rows of --train, at most a tenth, that are held out to fit the temperature of the scores and to try int8 "
        "on (default %(default)s)",
    )
    parser.add_argument(
        "--calibration-data",
        metavar="F",
        help="fit the temperature on these rows instead, best on some that the teacher has not seen either",
    )
    parser.add_argument(
        "--target-latency-ms",
        type=positive_number,
        metavar="MS",
        help="replace the ratio by the smallest whose student answers one text of 64 tokens within this on one thread "
        "of this machine's CPU, in int8 unless --precisions fp32 (recipes with budget.objective = latency)",
    )
    parser.add_argument(
        "--trim-vocabulary",
        type=Path,
        metavar="WORDS.txt",
        help="take out of the student the tokens that neither the training rows nor the words of this file read; other "
        "words are read in smaller pieces (teachers with WordPiece)",
    )
    add_data_options(
        parser,
        required=False,
        train="rows to train on",
        dev="rows to report on (default: held out of --train, else of --unlabelled, where the teacher labels them)",
    ).add_argument(
        "--unlabelled",
        nargs="+",
        metavar="F",
        help="more rows to train on, which need no labels, beside or instead of --train: tables, or .txt with one text "
        "a line",
    )
    add_run_options(parser)
    recipe = parser.add_argument_group("recipe", "each overrides the recipe's key of the same name")
    recipe.add_argument(
        "--epochs",
        type=positive_number,
        metavar="FLOAT",
        help="passes over --train in all; scales schedule.epochs_per_iteration and schedule.final_epochs",
    )
    for name, kind, description in recipe_fields():
        recipe.add_argument(
            "--" + name.partition(".")[2].replace("_", "-"),
            dest=name,
            type=kind,
            choices=recipe_choices(name),
            metavar=None if recipe_choices(name) else kind.__name__.upper(),
            help=f"{name}: {description}",
        )
    parser.set_defaults(run_command=_run_compress)


def _run_compress(options: argparse.Namespace) -> None:
    from ladabert_compress.artefact.writing import check_out

    values = vars(options)
    overrides = {name: values[name] for name, _, _ in recipe_fields() if values[name] is not None}
    chosen = options.recipe or default_recipe(overrides.get("budget.ratio"), options.target_latency_ms)
    recipe = load_recipe(chosen, overrides)
    if options.epochs is not None:
        recipe = recipe.with_total_epochs(options.epochs)
    check_out(options.out)
    run_folder = options.run or Path("runs") / options.out.name
    if run_folder.resolve() == options.out.resolve():
        raise OptionError(f"--run: {run_folder} is --out too, and the artefact would replace the run; choose another")
    if options.target_latency_ms is not None and options.target == "cuda":
        raise OptionError("--target-latency-ms: is measured on this machine's CPU; leave --target cuda out")
    if options.train is None and options.unlabelled is None:  # before files are read
        raise OptionError("no rows to learn from; name them with --train, --unlabelled or both")
    train_texts, dev_texts = read_rows_if_given(options, "train"), read_rows_if_given(options, "dev")
    unlabelled_texts = read_unlabelled(options)
    teacher, words = teacher_source(options), _read_words(options.trim_vocabulary)
    calibration_texts = read_rows_if_given(options, "calibration_data")

    # PyTorch takes seconds to load: only now that options and rows are right.
    from ladabert_compress.artefact.export import export_artefact
    from ladabert_compress.artefact.manifest import format_manifest
    from ladabert_compress.artefact.vocabulary import check_can_be_trimmed
    from ladabert_compress.teacher.check import check_teacher
    from ladabert_compress.teacher.folder import load_teacher
    from ladabert_compress.training.device import choose_device
    from ladabert_compress.training.processes import is_first_process
    from ladabert_compress.training.run import compress

    if options.recipe is None:
        print(f"recipe {chosen}, as none is named; --recipe names another, `ladabert-compress plan` compares them")  # noqa: T201
    if dev_texts is not None and is_first_process():  # one is enough, and it speaks for all
        check_teacher(
            teacher,
            dev_texts,
            recipe.training.max_length,
            choose_device(options.device),
            label_names=options.label_names,
        )
    if words is not None:
        check_can_be_trimmed(load_teacher(teacher).tokenizer)
    result = compress(
        teacher,
        recipe,
        train_texts,
        dev_texts,
        run_folder,
        unlabelled_texts=unlabelled_texts,
        dev_rows=options.dev_rows,
        calibration_texts=calibration_texts,
        calibration_rows=options.calibration_rows,
        find_ratio=_ratio_finder(options, recipe, _task(train_texts, unlabelled_texts), run_folder / "ratio.json"),
        label_names=options.label_names,
        device_name=options.device,
        checkpoint_every_s=options.checkpoint_every_s,
        resume=options.resume,
    )
    if not is_first_process():
        return
    precisions = ("int8", "fp32") if options.precisions == "both" else (options.precisions,)
    manifest = export_artefact(
        result,
        options.out,
        data_set=data_set_name(options.dev or options.train or options.unlabelled[0]),
        split="held-out" if options.dev is None else "dev",
        precisions=precisions,
        target=options.target,
        target_latency_ms=options.target_latency_ms,
        words=words,
    )
    print(format_manifest(manifest))  # noqa: T201
    print(f"written: {options.out}, its history to {run_folder}")  # noqa: T201
    print(next_step("ladabert-serve", "--models", options.out.parent))  # noqa: T201


def _read_words(file: Path | None) -> list[str] | None:
    """The words of a file, however they are separated; ``None`` without one."""
    if file is None:
        return None
    try:
        return file.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not UTF-8"
        raise OptionError(f"--trim-vocabulary: {file}: {reason}") from error


def _task(*parts: Texts | None) -> str:
    return next(texts.task for texts in parts if texts is not None)


def _ratio_finder(options: argparse.Namespace, recipe: Recipe, task: str, file: Path) -> FindRatio | None:
    if options.target_latency_ms is None:
        return None
    from ladabert_compress.search.latency import find_ratio, onnx_timer

    timer = onnx_timer(task, recipe.training.max_length, "fp32" if options.precisions == "fp32" else "int8")
    return lambda teacher, data: find_ratio(
        options.target_latency_ms, teacher.model, recipe, data, timer, file, resume=options.resume
    )
