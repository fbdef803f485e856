"""The commands that change how a finished artefact is stored or add a graph to it: ``pack`` and ``fp16``."""

from __future__ import annotations

import argparse
from pathlib import Path

from ladabert_compress.cli.options import OneLineParser


def add_pack(commands: argparse._SubParsersAction[OneLineParser]) -> None:
    """The command ``pack``."""
    parser = commands.add_parser(
        "pack",
        help="store an artefact's files as small as they can be, or plain",
        description="Stores the files of finished artefacts anew: as gzip where that saves a tenth or more, as with "
        "the tokenizer and where zeros are many, or with --plain as files that every tool opens. What is computed "
        "stays the same, bit for bit, and so does the version. Compress writes graphs packed and the tokenizer plain.",
    )
    parser.add_argument("artefacts", type=Path, nargs="+", metavar="models/NAME", help="the artefacts' folders")
    parser.add_argument("--plain", action="store_true", help="unpack them")
    parser.set_defaults(run_command=_run_pack)


def _run_pack(options: argparse.Namespace) -> None:
    from ladabert_compress.artefact.packing import pack
    from ladabert_compress.artefact.reading import read_manifest

    for folder in options.artefacts:
        before = read_manifest(folder)["files"]
        after = pack(folder, plain=options.plain)["files"]
        for name in after:
            print(f"{folder}: {name}: {before[name]['bytes']:,} → {after[name]['bytes']:,} bytes")  # noqa: T201


def add_fp16(commands: argparse._SubParsersAction[OneLineParser]) -> None:
    """The command ``fp16``."""
    parser = commands.add_parser(
        "fp16",
        help="add a graph for CUDA to an artefact",
        description="Adds model.fp16.onnx, the fp32 graph in half precision with the fused kernels of CUDA, which a "
        "server loads with LADABERT_PROVIDER=cuda. It is compared with fp32 on the CPU before it is written. The "
        "artefact gets a new version.",
    )
    parser.add_argument("artefacts", type=Path, nargs="+", metavar="models/NAME", help="the artefacts' folders")
    parser.set_defaults(run_command=_run_fp16)


def _run_fp16(options: argparse.Namespace) -> None:
    from ladabert_compress.artefact.packing import add_fp16 as add

    for folder in options.artefacts:
        files = add(folder)["files"]
        print(f"{folder}: model.fp16.onnx: {files['model.fp16.onnx']['bytes']:,} bytes")  # noqa: T201
