"""What the commands share: the parser, groups of options, and types of options."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from ladabert_compress.data.columns import Columns
from ladabert_compress.data.reading import read_labelled_texts, read_texts
from ladabert_compress.data.texts import LabelledTexts, Texts, concatenate
from ladabert_compress.errors import DataError, OptionError
from ladabert_compress.teacher.source import TeacherSource

Number = TypeVar("Number", int, float)


class OneLineParser(argparse.ArgumentParser):
    """Says what is wrong in one line and exits with code 2."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def add_data_options(
    parser: argparse.ArgumentParser, *, required: bool = True, **files: str
) -> argparse._ArgumentGroup:
    """An option for each file of rows, with what it is for, and the names of its columns."""
    data = parser.add_argument_group("data", "CSV, TSV, JSONL or Parquet by ending, or hub:NAME[/CONFIG][:SPLIT]")
    for name, purpose in files.items():
        data.add_argument(f"--{name}", required=required, metavar="F", help=purpose)
    data.add_argument("--text", metavar="COLUMN", help="the text's column (default: found by its name)")
    data.add_argument("--text-pair", metavar="COLUMN", help="the second text's column (default: found by its name)")
    data.add_argument("--label", metavar="COLUMN", help="the label's column (default: found by its name)")
    return data


def add_teacher_options(parser: argparse.ArgumentParser, *, required: bool = False, purpose: str) -> None:
    """The teacher, a folder or a hub id, and what may be read of it."""
    parser.add_argument("--teacher", required=required, type=Path, metavar="ID_OR_DIR", help=purpose)
    add_source_options(parser)


def add_source_options(parser: argparse.ArgumentParser) -> None:
    """The revision and the form of a model's weights."""
    parser.add_argument("--revision", default="", metavar="R", help="branch, tag or commit, where a hub id is named")
    parser.add_argument(
        "--allow-pickle",
        action="store_true",
        help="read pytorch_model.bin where there are no safetensors: its tensors alone, no code",
    )


def teacher_source(options: argparse.Namespace) -> TeacherSource:
    """Where the teacher is."""
    return TeacherSource(str(options.teacher), options.revision, options.allow_pickle)


def add_run_options(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Device and resumption."""
    run = parser.add_argument_group("run")
    run.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="(default %(default)s)")
    run.add_argument(
        "--checkpoint-every-s",
        type=positive_number,
        default=120.0,
        metavar="SECONDS",
        help="seconds between two checkpoints; Ctrl-C writes one, too (default %(default)g)",
    )
    run.add_argument("--resume", action="store_true", help="continue an interrupted run to the same result")
    return run


def read_rows(options: argparse.Namespace, name: str) -> LabelledTexts:
    """The rows of the option ``--name``; of a hub data set, those to train on or those to report on."""
    return read_labelled_texts(vars(options)[name], _columns(options), training=name == "train")


def read_rows_if_given(options: argparse.Namespace, name: str) -> LabelledTexts | None:
    """The same for an option that may be left out."""
    return None if vars(options)[name] is None else read_rows(options, name)


def read_texts_if_given(options: argparse.Namespace, name: str) -> Texts | None:
    """The texts of an option that may be left out; labels do not matter."""
    return None if vars(options)[name] is None else read_texts(vars(options)[name], _columns(options))


def read_unlabelled(options: argparse.Namespace) -> Texts | None:
    """The rows of all files of ``--unlabelled``.

    Raises:
        DataError: one has pairs and another single texts.
    """
    if not options.unlabelled:
        return None
    parts = [read_texts(source, _columns(options)) for source in options.unlabelled]
    for source, part in zip(options.unlabelled, parts, strict=True):
        if part.task != parts[0].task:
            raise DataError(f"{options.unlabelled[0]} is a {parts[0].task} task, {source} a {part.task} task")
    return concatenate(parts)


def data_set_name(source: str) -> str:
    """`…/sst2/dev.tsv` → `sst2/dev.tsv`: enough to know it by, and no path of this machine."""
    return source if source.startswith("hub:") else "/".join(Path(source).resolve().parts[-2:])


def _columns(options: argparse.Namespace) -> Columns:
    return Columns(options.text, options.text_pair, options.label)


def check_folder(option: str, file: Path | None) -> None:
    """Checks before a long measurement that the folder of its file exists.

    Raises:
        OptionError: it does not.
    """
    if file is not None and not file.parent.is_dir():
        raise OptionError(f"{option}: {file.parent}: no such folder; make it, or name another file")


def _number(kind: type[Number], fits: Callable[[Number], bool], expected: str) -> Callable[[str], Number]:
    def read(text: str) -> Number:
        try:
            value = kind(text)
        except ValueError:
            value = kind("-1")
        if not fits(value):
            raise argparse.ArgumentTypeError(f"{text!r}: expected {expected}")
        return value

    return read


positive = _number(int, lambda value: value >= 1, "a whole number from 1")
whole = _number(int, lambda value: value >= 0, "a whole number from 0")
not_negative = _number(float, lambda value: 0 <= value < float("inf"), "a number from 0")
positive_number = _number(float, lambda value: 0 < value < float("inf"), "a number over 0")
share = _number(float, lambda value: 0 <= value < 1, "a number from 0 to below 1")


def next_step(*command: str | Path) -> str:
    """The line that ends a run: the command that comes next, as a shell reads it."""
    return f"next: {shlex.join(map(str, command))}"


def names(text: str) -> tuple[str, ...]:
    """Distinct names separated by commas."""
    found = tuple(name.strip() for name in text.split(","))
    if len(set(found)) != len(found) or "" in found:
        raise argparse.ArgumentTypeError(f"{text!r}: expected distinct names separated by commas")
    return found
