"""What the commands of ``ladabert-compress`` share: the parser, groups of options, and their types."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:  # PyTorch is loaded by the command that needs it, so that --help is quick
    from ladabert_compress.data.reading import Columns


class OneLineParser(argparse.ArgumentParser):
    """Says what is wrong in one line and exits with code 2."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """The rows to train and to report on, and their columns."""
    data = parser.add_argument_group("data", "TSV, CSV or JSONL by ending, or hub:NAME[/CONFIG]")
    data.add_argument("--train", required=True, metavar="F", help="rows to train on")
    data.add_argument("--dev", required=True, metavar="F", help="rows to report on")
    add_column_options(data)


def add_column_options(group: argparse._ArgumentGroup) -> None:
    """The columns' names."""
    group.add_argument("--text", metavar="COLUMN", help="the text's column (default: GLUE's names)")
    group.add_argument("--text-pair", metavar="COLUMN", help="the second text's column (default: GLUE's names)")
    group.add_argument("--label", metavar="COLUMN", help="the label's column (default: label)")


def add_run_options(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Device and resumption."""
    run = parser.add_argument_group("run")
    run.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="(default %(default)s)")
    run.add_argument("--resume", action="store_true", help="continue an interrupted run to the same result")
    return run


def check_folder(option: str, file: Path | None) -> None:
    """Finds out before a long measurement whether its figures have a folder to go to.

    Raises:
        OptionError: they have none.
    """
    from ladabert_compress.errors import OptionError

    if file is not None and not file.parent.is_dir():
        raise OptionError(f"{option}: {file.parent}: no such folder; make it, or name another file")


def columns_of(options: argparse.Namespace) -> Columns:
    """The columns that the options name."""
    from ladabert_compress.data.reading import Columns

    return Columns(options.text, options.text_pair, options.label)


def positive(text: str) -> int:
    """A whole number from 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number from 1")
    return int(text)


def whole(text: str) -> int:
    """A whole number from 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number from 0")
    return int(text)


def positive_number(text: str) -> float:
    """A number over 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number over 0")
    return value


def share(text: str) -> float:
    """A number from 0 to below 1."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number from 0 to below 1")
    return value


def names(text: str) -> tuple[str, ...]:
    """Distinct names separated by commas."""
    found = tuple(name.strip() for name in text.split(","))
    if len(set(found)) != len(found) or "" in found:
        raise argparse.ArgumentTypeError(f"{text!r}: expected distinct names separated by commas")
    return found
