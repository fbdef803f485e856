"""The command ``ladabert-compress``."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from pydantic import ValidationError

from compression.cli_bench import add_bench
from compression.cli_options import (
    OneLineParser,
    add_data_options,
    add_run_options,
    columns_of,
    names,
    positive,
    positive_number,
    share,
    whole,
)
from compression.cli_pack import add_fp16, add_pack
from compression.cli_studies import add_evaluate, add_report, add_search
from compression.errors import CompressionError

if TYPE_CHECKING:  # PyTorch is loaded by the command that needs it, so that --help is quick
    from compression.compress import FindRatio
    from compression.recipe import Recipe


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one command; exits with 2 and one line for anything that the user can put right."""
    parsed = build_parser().parse_args(arguments)
    with _first_process_speaks():
        try:
            parsed.run_command(parsed)
        except ValidationError as error:
            first = error.errors()[0]
            option = "--" + str(first["loc"][-1]).replace("_", "-")
            _refuse(f"{option}: {first['msg']}, found {first['input']!r}")
        except CompressionError as error:
            _refuse(str(error))
        except OSError as error:
            _refuse(f"{error.filename or 'operating system'}: {error.strerror or error}")


@contextlib.contextmanager
def _first_process_speaks() -> Iterator[None]:
    """Silence where accelerate started several processes and this is not the first."""
    if os.environ.get("RANK", "0") == "0":
        yield
        return
    with (
        Path(os.devnull).open("w") as nothing,
        contextlib.redirect_stdout(nothing),
        contextlib.redirect_stderr(nothing),
    ):
        yield


def _refuse(message: str) -> NoReturn:
    print(f"ladabert-compress: error: {message}", file=sys.stderr)  # noqa: T201
    sys.exit(2)


def build_parser() -> argparse.ArgumentParser:
    """The parser with every command."""
    parser = OneLineParser(
        prog="ladabert-compress", description="Compress a fine-tuned BERT classifier and export it to ONNX."
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=OneLineParser)
    _add_finetune(commands)
    _add_compress(commands)
    add_evaluate(commands)
    add_report(commands)
    add_search(commands)
    add_bench(commands)
    add_pack(commands)
    add_fp16(commands)
    return parser


def _add_finetune(commands: argparse._SubParsersAction[OneLineParser]) -> None:
    parser = commands.add_parser(
        "finetune",
        help="fine-tune an encoder into a teacher",
        description="Fine-tunes a pretrained BERT on labelled texts and writes a Hugging Face folder (safetensors) "
        "with the weights of the evaluation that does best on --dev.",
    )
    parser.add_argument("--base", required=True, metavar="ID_OR_DIR", help="hub id or folder of a pretrained BERT")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder to write the teacher to")
    parser.add_argument("--name", help="the teacher's name in manifests (default: the name of --out)")
    parser.add_argument("--source", help="what the base is, repeated in manifests (default: what --base records)")
    parser.add_argument("--licence", default="unknown", help="the base's licence, repeated in manifests")
    parser.add_argument("--label-names", type=names, default=(), metavar="A,B,…", help="names of the labels, in order")
    parser.add_argument("--epochs", type=positive, default=3, help="passes over --train (default %(default)s)")
    parser.add_argument(
        "--evaluations-per-epoch",
        type=positive,
        default=4,
        help="evaluations on --dev in a pass (default %(default)s)",
    )
    parser.add_argument(
        "--average-decay",
        type=share,
        default=0.99,
        help="the teacher is an exponential average of the weights; 0 keeps the last ones (default %(default)s)",
    )
    parser.add_argument("--dropout", type=share, default=0.1, help="in every layer (default %(default)s)")
    parser.add_argument("--batch-size", type=int, default=32, help="rows a step (default %(default)s)")
    parser.add_argument("--learning-rate", type=float, default=5e-5, help="peak (default %(default)s)")
    parser.add_argument("--max-length", type=int, default=128, help="tokens a row (default %(default)s)")
    add_data_options(parser)
    run = add_run_options(parser)
    run.add_argument("--seed", type=int, default=0, help="fixes every random choice (default %(default)s)")
    run.add_argument(
        "--precision",
        choices=("auto", "fp32", "bf16"),
        default="auto",
        help="auto: bf16 where the device has it (default %(default)s)",
    )
    parser.set_defaults(run_command=_run_finetune)


def _run_finetune(options: argparse.Namespace) -> None:
    from compression.data import read_labelled_texts
    from compression.finetune import FinetuneConfig, finetune
    from compression.training import TrainingConfig

    columns = columns_of(options)
    config = FinetuneConfig(
        base=options.base,
        name=options.name or options.out.name,
        source=options.source or "",
        licence=options.licence,
        epochs=options.epochs,
        evaluations_per_epoch=options.evaluations_per_epoch,
        average_decay=options.average_decay,
        dropout=options.dropout,
        label_names=options.label_names,
        training=TrainingConfig(
            batch_size=options.batch_size,
            learning_rate=options.learning_rate,
            max_length=options.max_length,
            precision=options.precision,
            seed=options.seed,
        ),
    )
    accuracy = finetune(
        config,
        read_labelled_texts(options.train, columns),
        read_labelled_texts(options.dev, columns, split="validation"),
        options.out,
        device_name=options.device,
        resume=options.resume,
    )
    print(f"{options.out}: dev accuracy {accuracy:.4f}")  # noqa: T201


def _add_compress(commands: argparse._SubParsersAction[OneLineParser]) -> None:
    from compression.recipe import recipe_fields

    parser = commands.add_parser(
        "compress",
        help="compress a teacher into a student and export it",
        description="The LadaBERT run: factorise and prune a little, distil, repeat; then export to ONNX, compare "
        "with PyTorch, and write the artefact. Every key of the recipe can be overridden.",
    )
    parser.add_argument("--teacher", required=True, type=Path, metavar="DIR", help="folder of the fine-tuned BERT")
    parser.add_argument("--recipe", required=True, type=Path, metavar="R.toml", help="the run's settings")
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
        "--calibration-rows",
        type=whole,
        default=1000,
        metavar="N",
        help="rows of --train, at most a tenth, that are held out to fit the temperature of the scores on "
        "(default %(default)s)",
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
    add_data_options(parser)
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
            metavar=kind.__name__.upper(),
            help=f"{name}: {description}",
        )
    parser.set_defaults(run_command=_run_compress)


def _run_compress(options: argparse.Namespace) -> None:
    from compression.artefact import check_out, format_manifest
    from compression.compress import compress
    from compression.data import read_labelled_texts
    from compression.errors import OptionError
    from compression.export import export_artefact
    from compression.processes import is_first_process
    from compression.recipe import load_recipe, recipe_fields
    from compression.teacher_check import check_teacher

    values = vars(options)
    overrides = {name: values[name] for name, _, _ in recipe_fields() if values[name] is not None}
    recipe = load_recipe(options.recipe, overrides)
    if options.epochs is not None:
        recipe = recipe.lasting(options.epochs)
    columns = columns_of(options)
    check_out(options.out)
    run_folder = options.run or Path("runs") / options.out.name
    if run_folder.resolve() == options.out.resolve():
        raise OptionError(f"--run: {run_folder} is --out too, and the artefact would replace the run; choose another")
    if options.target_latency_ms is not None and options.target == "cuda":
        raise OptionError("--target-latency-ms: is measured on this machine's CPU; leave --target cuda out")
    train_texts = read_labelled_texts(options.train, columns)
    dev_texts = read_labelled_texts(options.dev, columns, split="validation")
    if is_first_process():  # one is enough, and it speaks for all
        check_teacher(options.teacher, dev_texts, recipe.training.max_length, options.device)
    result = compress(
        options.teacher,
        recipe,
        train_texts,
        dev_texts,
        run_folder,
        calibration_rows=options.calibration_rows,
        calibration_texts=(
            None
            if options.calibration_data is None
            else read_labelled_texts(options.calibration_data, columns, split="validation")
        ),
        find_ratio=(
            None
            if options.target_latency_ms is None
            else _ratio_finder(options, recipe, train_texts.task, run_folder / "ratio.json")
        ),
        device_name=options.device,
        resume=options.resume,
    )
    if not is_first_process():
        return
    precisions = ("int8", "fp32") if options.precisions == "both" else (options.precisions,)
    manifest = export_artefact(
        result,
        options.out,
        data_set=_data_set_name(options.dev),
        precisions=precisions,
        target=options.target,
        target_latency_ms=options.target_latency_ms,
    )
    print(format_manifest(manifest))  # noqa: T201


def _ratio_finder(options: argparse.Namespace, recipe: Recipe, task: str, file: Path) -> FindRatio:
    from compression.latency import find_ratio, onnx_timer

    timer = onnx_timer(task, recipe.training.max_length, "fp32" if options.precisions == "fp32" else "int8")
    return lambda teacher, data: find_ratio(
        options.target_latency_ms, teacher.model, recipe, data, timer, file, resume=options.resume
    )


def _data_set_name(source: str) -> str:
    """`…/sst2/dev.tsv` → `sst2/dev.tsv`: enough to know it by, and no path of this machine."""
    return source if source.startswith("hub:") else "/".join(Path(source).resolve().parts[-2:])
