"""The command ``ladabert-compress``."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from pydantic import ValidationError

from ladabert_compress.cli.bench import add_bench
from ladabert_compress.cli.cascade import add_cascade
from ladabert_compress.cli.compress import add_compress
from ladabert_compress.cli.evaluate import add_evaluate
from ladabert_compress.cli.export import add_export
from ladabert_compress.cli.finetune import add_finetune
from ladabert_compress.cli.options import OneLineParser
from ladabert_compress.cli.pack import add_fp16, add_pack
from ladabert_compress.cli.plan import add_plan
from ladabert_compress.cli.report import add_report
from ladabert_compress.cli.search import add_search
from ladabert_compress.errors import CompressionError, StoppedError


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one command; exits with code 2 and one line for anything that the user can fix.

    After Ctrl-C or SIGTERM it exits with 128 and the signal's number, and says in one line how to go on.
    """
    parsed = build_parser().parse_args(arguments)
    with _other_processes_silenced(), _sigterm_as_interrupt():
        try:
            parsed.run_command(parsed)
        except ValidationError as error:
            first = error.errors()[0]
            option = "--" + str(first["loc"][-1]).replace("_", "-")
            _refuse(f"{option}: {first['msg']}, found {first['input']!r}")
        except StoppedError as error:
            _end(f"{error}; the same command with --resume goes on from there", 128 + error.signal_number)
        except KeyboardInterrupt as error:
            again = "; the same command with --resume goes on from its last checkpoint" if "resume" in parsed else ""
            _end(f"stopped{again}", 128 + (error.args[0] if error.args else signal.SIGINT))
        except ModuleNotFoundError as error:
            if (error.name or "").startswith("ladabert"):
                raise
            _refuse(f"{error.name} is not installed, and this command needs it: pip install 'ladabert[compression]'")
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


@contextlib.contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """Lets SIGTERM end the command as Ctrl-C does; outside of the main thread, to which signals go, nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, _: FrameType | None) -> None:
        raise KeyboardInterrupt(number)

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _refuse(message: str) -> NoReturn:
    _end(f"error: {message}", 2)


def _end(message: str, code: int) -> NoReturn:
    print(f"ladabert-compress: {message}", file=sys.stderr)  # noqa: T201
    sys.exit(code)


class _Version(argparse.Action):
    """Prints the version of the installed package."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        print(f"{parser.prog} {metadata.version('ladabert')}")  # noqa: T201
        parser.exit()


def build_parser() -> argparse.ArgumentParser:
    """The parser with every command."""
    parser = OneLineParser(
        prog="ladabert-compress", description="Compress a fine-tuned BERT classifier and export it to ONNX."
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=OneLineParser)
    for add in (
        add_finetune,
        add_plan,
        add_compress,
        add_export,
        add_cascade,
        add_evaluate,
        add_report,
        add_search,
        add_bench,
        add_pack,
        add_fp16,
    ):
        add(commands)
    return parser
