"""The command ``ladabert-compress``."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from pydantic import ValidationError

from compression.errors import CompressionError

if TYPE_CHECKING:  # PyTorch is loaded by the command that needs it, so that --help is quick
    from compression.data import Columns


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line and exits with code 2."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


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
    parser = _Parser(
        prog="ladabert-compress", description="Compress a fine-tuned BERT classifier and export it to ONNX."
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)
    _add_finetune(commands)
    _add_compress(commands)
    _add_evaluate(commands)
    _add_report(commands)
    _add_search(commands)
    return parser


def _add_finetune(commands: argparse._SubParsersAction[_Parser]) -> None:
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
    parser.add_argument("--label-names", type=_names, default=(), metavar="A,B,…", help="names of the labels, in order")
    parser.add_argument("--epochs", type=_positive, default=3, help="passes over --train (default %(default)s)")
    parser.add_argument(
        "--evaluations-per-epoch",
        type=_positive,
        default=4,
        help="evaluations on --dev in a pass (default %(default)s)",
    )
    parser.add_argument(
        "--average-decay",
        type=_share,
        default=0.99,
        help="the teacher is an exponential average of the weights; 0 keeps the last ones (default %(default)s)",
    )
    parser.add_argument("--dropout", type=_share, default=0.1, help="in every layer (default %(default)s)")
    parser.add_argument("--batch-size", type=int, default=32, help="rows a step (default %(default)s)")
    parser.add_argument("--learning-rate", type=float, default=5e-5, help="peak (default %(default)s)")
    parser.add_argument("--max-length", type=int, default=128, help="tokens a row (default %(default)s)")
    _add_data_options(parser)
    run = _add_run_options(parser)
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

    columns = _columns(options)
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


def _add_compress(commands: argparse._SubParsersAction[_Parser]) -> None:
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
        "--calibration-rows",
        type=_whole,
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
    _add_data_options(parser)
    _add_run_options(parser)
    recipe = parser.add_argument_group("recipe", "each overrides the recipe's key of the same name")
    recipe.add_argument(
        "--epochs",
        type=_positive_number,
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
    from compression.export import export_artefact
    from compression.processes import is_first_process
    from compression.recipe import load_recipe, recipe_fields

    values = vars(options)
    overrides = {name: values[name] for name, _, _ in recipe_fields() if values[name] is not None}
    recipe = load_recipe(options.recipe, overrides)
    if options.epochs is not None:
        recipe = recipe.lasting(options.epochs)
    columns = _columns(options)
    check_out(options.out)
    result = compress(
        options.teacher,
        recipe,
        read_labelled_texts(options.train, columns),
        read_labelled_texts(options.dev, columns, split="validation"),
        options.run or Path("runs") / options.out.name,
        calibration_rows=options.calibration_rows,
        calibration_texts=(
            None
            if options.calibration_data is None
            else read_labelled_texts(options.calibration_data, columns, split="validation")
        ),
        device_name=options.device,
        resume=options.resume,
    )
    if not is_first_process():
        return
    precisions = ("int8", "fp32") if options.precisions == "both" else (options.precisions,)
    manifest = export_artefact(result, options.out, data_set=_data_set_name(options.dev), precisions=precisions)
    print(format_manifest(manifest))  # noqa: T201


def _add_evaluate(commands: argparse._SubParsersAction[_Parser]) -> None:
    parser = commands.add_parser(
        "evaluate",
        help="measure an artefact as the server would run it",
        description="Accuracy, calibration and latency of every graph of an artefact in ONNX Runtime on one thread.",
    )
    parser.add_argument("artefact", type=Path, metavar="models/NAME", help="the artefact's folder")
    parser.add_argument("--teacher", type=Path, metavar="DIR", help="report the agreement with this teacher too")
    parser.add_argument("--json", type=Path, metavar="F", help="also write the figures to this file")
    data = parser.add_argument_group("data", "TSV, CSV or JSONL by ending, or hub:NAME[/CONFIG]")
    data.add_argument("--data", required=True, metavar="F", help="rows to measure on")
    _add_column_options(data)
    parser.set_defaults(run_command=_run_evaluate)


def _run_evaluate(options: argparse.Namespace) -> None:
    import json

    from compression.data import read_labelled_texts
    from compression.evaluate import evaluate, format_evaluation

    texts = read_labelled_texts(options.data, _columns(options), split="validation")
    figures = evaluate(options.artefact, texts, options.data, teacher_folder=options.teacher)
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    print(format_evaluation(figures))  # noqa: T201


def _add_report(commands: argparse._SubParsersAction[_Parser]) -> None:
    parser = commands.add_parser(
        "report",
        help="one page about runs and artefacts",
        description="One self-contained HTML page: learning curves, accuracy against size and against latency, ranks "
        "and non-zeros per layer, answers and their confidence. A run and an artefact of one name are one student.",
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="runs/NAME or models/NAME, or both")
    parser.add_argument("--out", required=True, type=Path, metavar="F.html", help="the page")
    parser.add_argument(
        "--teacher",
        type=Path,
        metavar="DIR",
        help="measure the latency of this teacher and the artefacts side by side, and with --data list the rows on "
        "which they differ most",
    )
    data = parser.add_argument_group("data", "TSV, CSV or JSONL by ending, or hub:NAME[/CONFIG]")
    data.add_argument(
        "--data", metavar="F", help="rows to measure the artefacts on (default: what each run stored of its dev rows)"
    )
    _add_column_options(data)
    parser.set_defaults(run_command=_run_report)


def _run_report(options: argparse.Namespace) -> None:
    from compression.data import read_labelled_texts
    from compression.report import write_report

    texts = None if options.data is None else read_labelled_texts(options.data, _columns(options), split="validation")
    write_report(options.runs, options.out, texts=texts, teacher_folder=options.teacher)
    print(f"{options.out}: {options.out.stat().st_size / 1024:.0f} KB")  # noqa: T201


def _add_search(commands: argparse._SubParsersAction[_Parser]) -> None:
    parser = commands.add_parser(
        "search",
        help="search how to split the budget, write a recipe",
        description="Searches P_embd, P_svd and P_weight under equation 7: each trial is a short distillation, scored "
        "on rows held out of --train. Writes the best split as a recipe; all else is as in --recipe.",
    )
    parser.add_argument("--teacher", required=True, type=Path, metavar="DIR", help="folder of the fine-tuned BERT")
    parser.add_argument("--out", required=True, type=Path, metavar="R.toml", help="recipe to write")
    parser.add_argument(
        "--recipe",
        type=Path,
        default=Path("recipes/ladabert-4.toml"),
        metavar="R.toml",
        help="everything that is not searched (default %(default)s)",
    )
    parser.add_argument("--ratio", type=float, help="budget.ratio in place of the recipe's")
    parser.add_argument("--trials", type=_positive, default=12, help="splits to score (default %(default)s)")
    parser.add_argument(
        "--sampler",
        choices=("random", "tpe"),
        default="random",
        help="random, as in the paper, or tree-structured Parzen estimators (default %(default)s)",
    )
    parser.add_argument("--steps", type=_positive, default=300, help="of one trial (default %(default)s)")
    parser.add_argument(
        "--held-out-rows",
        type=_positive,
        default=2000,
        metavar="N",
        help="rows of --train, at most a tenth, to score on (default %(default)s)",
    )
    parser.add_argument(
        "--run", type=Path, metavar="DIR", help="folder of the journal (default runs/search-NAME of --out)"
    )
    data = parser.add_argument_group("data", "TSV, CSV or JSONL by ending, or hub:NAME[/CONFIG]")
    data.add_argument("--train", required=True, metavar="F", help="rows to train and score on")
    _add_column_options(data)
    run = parser.add_argument_group("run")
    run.add_argument("--processes", type=_positive, help="of one thread each (default: the cores at hand)")
    run.add_argument("--seed", type=_whole, default=0, help="fixes the random splits (default %(default)s)")
    run.add_argument("--resume", action="store_true", help="continue an interrupted search")
    parser.set_defaults(run_command=_run_search)


def _run_search(options: argparse.Namespace) -> None:
    from compression.data import read_labelled_texts
    from compression.errors import OptionError
    from compression.recipe import load_recipe
    from compression.search import SearchConfig, default_processes, search, write_recipe

    if options.out.exists() or not options.out.parent.is_dir():
        reason = "exists already; name another file or delete it" if options.out.exists() else "its folder is not there"
        raise OptionError(f"--out: {options.out}: {reason}")
    config = SearchConfig(
        recipe=load_recipe(options.recipe, {} if options.ratio is None else {"budget.ratio": options.ratio}),
        trials=options.trials,
        sampler=options.sampler,
        steps=options.steps,
        held_out_rows=options.held_out_rows,
        processes=options.processes or default_processes(),
        seed=options.seed,
    )
    texts = read_labelled_texts(options.train, _columns(options))
    run_folder = options.run or Path("runs") / f"search-{options.out.stem}"
    found = search(options.teacher, config, texts, run_folder, resume=options.resume)
    write_recipe(found, config, options.teacher.resolve().name, options.out)
    print(f"{options.out}: accuracy {found.scored[0][0]:.4f}, median {found.median:.4f}")  # noqa: T201


def _add_data_options(parser: argparse.ArgumentParser) -> None:
    data = parser.add_argument_group("data", "TSV, CSV or JSONL by ending, or hub:NAME[/CONFIG]")
    data.add_argument("--train", required=True, metavar="F", help="rows to train on")
    data.add_argument("--dev", required=True, metavar="F", help="rows to report on")
    _add_column_options(data)


def _add_column_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--text", metavar="COLUMN", help="the text's column (default: GLUE's names)")
    group.add_argument("--text-pair", metavar="COLUMN", help="the second text's column (default: GLUE's names)")
    group.add_argument("--label", metavar="COLUMN", help="the label's column (default: label)")


def _add_run_options(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    run = parser.add_argument_group("run")
    run.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="(default %(default)s)")
    run.add_argument("--resume", action="store_true", help="continue an interrupted run to the same result")
    return run


def _data_set_name(source: str) -> str:
    """`…/sst2/dev.tsv` → `sst2/dev.tsv`: enough to know it by, and no path of this machine."""
    return source if source.startswith("hub:") else "/".join(Path(source).resolve().parts[-2:])


def _columns(options: argparse.Namespace) -> Columns:
    from compression.data import Columns

    return Columns(options.text, options.text_pair, options.label)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number from 1")
    return int(text)


def _whole(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number from 0")
    return int(text)


def _positive_number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number over 0")
    return value


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number from 0 to below 1")
    return value


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    if len(set(names)) != len(names) or "" in names:
        raise argparse.ArgumentTypeError(f"{text!r}: expected distinct names separated by commas")
    return names
