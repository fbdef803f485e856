"""`ladabert-serve`: serve a folder of artefacts, adopt or check one, or ask a running server for its health."""

import argparse
import contextlib
import http.client
import os
import queue
import socket
import sys
import threading
from collections.abc import Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args
from urllib.parse import urlsplit

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from ladabert_serve.errors import StartError
from ladabert_serve.observability.logs import configure_logging
from ladabert_serve.settings import ENV_PREFIX, Settings

FAILED = 1
WRONG_USAGE = 2
INTERRUPTED = 130
HEALTH_TIMEOUT_S = 5


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Say what was wrong in one line."""
        self.exit(WRONG_USAGE, f"ladabert-serve: {message} (see {self.prog} --help)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code: 0, 1 for a failure, 2 for wrong usage."""
    arguments = vars(_parser().parse_args(argv))
    command = arguments.pop("command")
    try:
        if command == "adopt":
            return _adopt(**arguments)
        if command == "check":
            return _check(arguments["artefact"])
        if command == "score":
            return _score(arguments)
        if command == "health":
            return _health(arguments["url"])
        if command == "keys":
            return _keys(arguments["action"], arguments["name"], arguments["scope"] or ["classify"])
        settings = read_settings(arguments)
        return WRONG_USAGE if settings is None else _serve(settings)
    except StartError as error:
        sys.stderr.write(f"ladabert-serve: {error}\n")
        return FAILED


def read_settings(options: dict[str, str]) -> Settings | None:
    """Return the settings, or None after one line on stderr about the option or variable that is wrong."""
    try:
        return Settings(**options)  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = str(first["loc"][0])
        source = _option(field) if field in options else ENV_PREFIX + field.upper()
        what = first["msg"].removeprefix("Value error, ")
        sys.stderr.write(f"ladabert-serve: {source}: {what}, got {str(first['input'])[:100]!r}\n")
        return None


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="ladabert-serve",
        description="Serve LadaBERT students over HTTP. An option wins over its environment variable.",
        allow_abbrev=False,
    )
    for name, field in Settings.model_fields.items():
        _add_option(parser, name, field)
    commands = parser.add_subparsers(dest="command", metavar="[adopt | check | health | keys | score]")
    _add_adopt(commands)
    check = commands.add_parser("check", help="verify an artefact: manifest, sha256, and a run of each graph")
    check.add_argument("artefact", type=Path, help="the artefact's folder, as in models/NAME")
    health = commands.add_parser("health", help="exit 0 when a running server is ready, else 1")
    port = os.environ.get(f"{ENV_PREFIX}PORT") or Settings.model_fields["port"].default
    uds = os.environ.get(f"{ENV_PREFIX}UDS")
    url = f"unix:{uds}" if uds else f"http://127.0.0.1:{port}"
    health.add_argument("--url", default=url, help="the server, or unix:PATH (default: %(default)s)")
    _add_keys(commands)
    _add_score(commands)
    return parser


def _add_adopt(commands: "argparse._SubParsersAction[_Parser]") -> None:
    adopt = commands.add_parser(
        "adopt",
        help="make an artefact of an ONNX export: a folder with config.json, tokenizer.json and model.onnx",
        description="Make an artefact of a classifier that optimum-cli exported to ONNX, whole or not at all.",
    )
    adopt.add_argument("export", type=Path, metavar="DIR", help="the export's folder")
    adopt.add_argument("--out", type=Path, required=True, help="the artefact's folder, as in models/NAME")
    adopt.add_argument(
        "--task",
        choices=["single", "pair"],
        default="single",
        help="whether the model reads one text or compares two (default: %(default)s)",
    )
    adopt.add_argument(
        "--precision",
        choices=["fp32", "int8"],
        help="adopt only model.onnx (fp32) or model_quantized.onnx (int8) (default: each that is there)",
    )
    adopt.add_argument(
        "--max-length",
        type=int,
        metavar="TOKENS",
        help="cut texts at fewer tokens than the export says (default: what tokenizer and model both take)",
    )


def _add_score(commands: "argparse._SubParsersAction[_Parser]") -> None:
    score = commands.add_parser(
        "score",
        help="label the rows of files, without a server",
        description="Add label and score to every row of CSV, JSONL or Parquet files. An interrupted run goes on where "
        "it was. Settings of the models (--models, --precision, --runners, …) stand before the word score.",
    )
    score.add_argument("--input", nargs="+", required=True, metavar="FILE", help="files and globs, of equal columns")
    score.add_argument("--output", type=Path, required=True, metavar="FILE", help="what to write, by its ending")
    score.add_argument("--model", action="append", metavar="NAME", help="repeatable (default: the only one there is)")
    score.add_argument("--text-column", default="text", metavar="COLUMN", help="default: %(default)s")
    score.add_argument(
        "--text-pair-column",
        default="text_pair",
        metavar="COLUMN",
        help="of models that compare two texts (default: %(default)s)",
    )
    score.add_argument(
        "--prefix", default="", metavar="TEXT", help="before the names of the new columns, label and score"
    )


def _add_keys(commands: "argparse._SubParsersAction[_Parser]") -> None:
    keys = commands.add_parser("keys", help="make or hash an API key, and print its line for LADABERT_API_KEYS_FILE")
    actions = keys.add_subparsers(dest="action", metavar="new | hash", required=True)
    for action, text in (("new", "make a random key; it is shown once"), ("hash", "read a key from standard input")):
        parser = actions.add_parser(action, help=text)
        parser.add_argument("--name", required=True, help="whose key it is; the access log shows it")
        parser.add_argument(
            "--scope",
            action="append",
            choices=["classify", "admin"],
            help="what it may do, repeatable (default: classify; admin includes it)",
        )


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def _add_option(parser: argparse.ArgumentParser, name: str, field: FieldInfo) -> None:
    default = "unset" if field.default is None else str(field.default).lower()
    text = f"{field.description} (default: {default}; {ENV_PREFIX}{name.upper()})".replace("%", "%%")
    if field.annotation is bool:
        parser.add_argument(_option(name), action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS, help=text)
        return
    choices = [choice for choice in get_args(field.annotation) if isinstance(choice, str)]
    metavar = "{" + ",".join(choices) + "}" if choices else name.upper()
    parser.add_argument(_option(name), metavar=metavar, default=argparse.SUPPRESS, help=text)


def _serve(settings: Settings) -> int:
    # Imported here, so that --help stays quick.
    from ladabert_serve.server.listener import bind
    from ladabert_serve.server.server import announcement, raise_descriptor_limit, run_server
    from ladabert_serve.server.workers import Supervisor

    configure_logging(settings)
    raise_descriptor_limit()
    listeners, settings = bind(settings)
    with contextlib.closing(listeners):
        if settings.workers > 1:
            return Supervisor(settings, listeners).run()
        run_server(settings, listeners, lambda registry: _tell(announcement(settings, registry, listeners)))
    return 0


def _adopt(
    export: Path, out: Path, task: Literal["single", "pair"], precision: str | None, max_length: int | None
) -> int:
    if not export.is_dir():
        sys.stderr.write(f"ladabert-serve: {export}: no such folder\n")
        return WRONG_USAGE
    from ladabert_serve.models.adoption import adopt

    out = Path(os.path.normpath(out.absolute()))
    artefact, left_out = adopt(export, out, task, precision, max_length)
    for line in left_out:
        sys.stderr.write(f"ladabert-serve: left out: {line}\n")
    _tell(
        f"{artefact.name}: version {artefact.version}, {task}, {len(artefact.labels)} labels, "
        f"{artefact.max_length} tokens, {', '.join(artefact.graph_files())}; serve it with --models {out.parent}"
    )
    return 0


def _check(folder: Path) -> int:
    if not folder.is_dir():
        sys.stderr.write(f"ladabert-serve: {folder}: no such folder\n")
        return WRONG_USAGE
    from ladabert_serve.models.artefact import read_artefact
    from ladabert_serve.models.loading import try_artefact

    folder = Path(os.path.normpath(folder.absolute()))
    artefact = read_artefact(folder)
    try_artefact(artefact)
    files = ", ".join(artefact.manifest["files"])
    _tell(f"{artefact.name}: version {artefact.version}, {artefact.task}, {files}: all as the manifest says")
    return 0


def _score(arguments: dict[str, Any]) -> int:
    from ladabert_serve.scoring.score import Job, score
    from ladabert_serve.scoring.scorer import Columns

    job = Job(
        arguments.pop("input"),
        arguments.pop("output"),
        arguments.pop("model") or (),
        Columns(arguments.pop("text_column"), arguments.pop("text_pair_column"), arguments.pop("prefix")),
    )
    settings = read_settings(arguments)
    if settings is None:
        return WRONG_USAGE
    try:
        result = score(job, settings)
    except KeyboardInterrupt:
        sys.stderr.write("ladabert-serve: stopped; the same command goes on after the last finished part\n")
        return INTERRUPTED
    before = f", {result.done_before:,} of them before this run" if result.done_before else ""
    _tell(f"{job.output}: {result.rows:,} rows{before}")
    if result.without_text:
        _tell(f"{result.without_text:,} rows have no text; their label is empty")
    return 0


def _keys(action: str, name: str, scopes: Sequence[str]) -> int:
    from ladabert_serve.http.api_keys import format_line, new_key

    key = new_key() if action == "new" else sys.stdin.readline().rstrip("\r\n")
    line = format_line(name, key, scopes)
    if action == "new":
        sys.stderr.write(f"the key, which is shown only now: {key}\nits line, for the file of keys:\n")
    _tell(line)
    return 0


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=HEALTH_TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        """Connect to the path."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(HEALTH_TIMEOUT_S)
        self.sock.connect(self._path)


def _health(url: str) -> int:
    try:
        parts = urlsplit(url)
        path = parts.path.rstrip("/") + "/health/ready"
        server: http.client.HTTPConnection | None
        if parts.scheme == "unix" and parts.path and not parts.netloc:
            server, path = _UnixConnection(parts.path), "/health/ready"
        else:
            make = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}[parts.scheme]
            server = make(parts.hostname or "", parts.port, timeout=HEALTH_TIMEOUT_S)
    except (KeyError, ValueError, http.client.InvalidURL):
        server = None
    if server is None or not server.host or parts.query or parts.fragment:
        sys.stderr.write(
            f"ladabert-serve: --url must be like http://HOST:PORT, http://HOST/PATH or unix:PATH, got {url!r}\n"
        )
        return WRONG_USAGE
    answers: queue.SimpleQueue[str] = queue.SimpleQueue()
    # In a thread, because the time-out of a socket bounds neither the look-up of a name nor an answer that trickles in.
    threading.Thread(target=lambda: answers.put(_ask(server, path)), daemon=True).start()
    try:
        answer = answers.get(timeout=HEALTH_TIMEOUT_S)
    except queue.Empty:
        answer = f"no answer within {HEALTH_TIMEOUT_S} s"
    if answer == "ready":
        _tell(answer)
        return 0
    line = f"{url.rstrip('/')}/health/ready: {answer}"
    sys.stderr.write(f"ladabert-serve: {line.encode('unicode_escape').decode()}\n")
    return FAILED


def _ask(server: http.client.HTTPConnection, path: str) -> str:
    """Return `ready` when the path answers 200, else what was wrong."""
    try:
        with contextlib.closing(server):
            server.request("GET", path)
            status = server.getresponse().status
    except (OSError, ValueError, http.client.HTTPException) as error:
        return str(error) or type(error).__name__
    return "ready" if status == HTTPStatus.OK else f"status {status}"


def _tell(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
