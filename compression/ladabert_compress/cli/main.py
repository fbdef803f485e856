"""The command ``ladabert-compress``."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from pydantic import ValidationError

from ladabert_compress.cli.bench import add_bench
from ladabert_compress.cli.compress import add_compress
from ladabert_compress.cli.evaluate import add_evaluate
from ladabert_compress.cli.export import add_export
from ladabert_compress.cli.finetune import add_finetune
from ladabert_compress.cli.options import OneLineParser
from ladabert_compress.cli.pack import add_fp16, add_pack
from ladabert_compress.cli.report import add_report
from ladabert_compress.cli.search import add_search
from ladabert_compress.errors import CompressionError


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one command; exits with code 2 and one line for anything that the user can fix."""
    parsed = build_parser().parse_args(arguments)
    with _other_processes_silenced():
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
def _other_processes_silenced() -> Iterator[None]:
    """Writes nothing to the terminal where accelerate started several processes and this is not the first."""
    if os.environ.get("RANK", "0") == "0":
        yield
        return
    with Path(os.devnull).open("w") as null, contextlib.redirect_stdout(null), contextlib.redirect_stderr(null):
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
    for add in (
        add_finetune,
        add_compress,
        add_export,
        add_evaluate,
        add_report,
        add_search,
        add_bench,
        add_pack,
        add_fp16,
    ):
        add(commands)
    return parser
