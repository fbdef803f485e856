"""The command ``pack``."""

from __future__ import annotations

import argparse
from pathlib import Path

from compression.cli_options import OneLineParser


def add_pack(commands: argparse._SubParsersAction[OneLineParser]) -> None:
    """The command ``pack``."""
    parser = commands.add_parser(
        "pack",
        help="store an artefact's graphs as small as they can be, or plain",
        description="Stores the graphs of finished artefacts anew: as gzip where that saves a tenth or more, which it "
        "does where zeros are many, or with --plain as files that every ONNX tool opens. What is computed stays the "
        "same, bit for bit, and so does the version. Compress writes its graphs packed.",
    )
    parser.add_argument("artefacts", type=Path, nargs="+", metavar="models/NAME", help="the artefacts' folders")
    parser.add_argument("--plain", action="store_true", help="unpack them")
    parser.set_defaults(run_command=_run_pack)


def _run_pack(options: argparse.Namespace) -> None:
    from compression.artefact import pack, read_manifest

    for folder in options.artefacts:
        before = read_manifest(folder)["files"]
        after = pack(folder, plain=options.plain)["files"]
        for name in after:
            if "precision" in after[name]:
                print(f"{folder}: {name}: {before[name]['bytes']:,} → {after[name]['bytes']:,} bytes")  # noqa: T201
