"""What an artefact costs before the first request: bytes on disk, time until the server is ready, memory it holds.

python -m benchmarks footprint models/NAME… [--repeats N] [--write]

Each artefact is served alone by the real server, packed and plain in turns. Ready is when the server first answers that
it is, models loaded and warmed up, counted from the start of the process; resident memory is read then, and again after
a list of 256 texts of every length was answered four times. `bound` is what the graph's int8 weights would take if each
were coded in as many bits as its matrix's distribution of values needs (zeros included), with the rest as gzip.
"""

import argparse
import asyncio
import shutil
import statistics
import tempfile
import zlib
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from benchmarks.harness.client import ask, classify
from benchmarks.harness.pages import table
from benchmarks.harness.results import Results, Row, origin
from benchmarks.harness.servers import our_service
from benchmarks.harness.statistics import turns
from ladabert_compress.artefact.packing import pack
from ladabert_compress.artefact.reading import read_graph, read_manifest

LOAD_LENGTHS = (4, 12, 28, 60, 120)  # words in a text
LOAD_REQUESTS = 4
LOAD_TEXTS = 256
KINDS = ("plain", "packed")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what the command is told."""
    parser.add_argument("artefacts", type=Path, nargs="+", metavar="models/NAME")
    parser.add_argument("--repeats", type=int, default=5, help="starts of each (default: %(default)s)")


def measure(options: argparse.Namespace) -> Results:
    """Start the server of every artefact, packed and plain in turns."""
    results = Results("footprint", origin("onnxruntime"), {"repeats": options.repeats})
    for artefact in options.artefacts:
        with tempfile.TemporaryDirectory() as temporary:
            folders = [_copy_alone(artefact, Path(temporary) / kind, plain=kind == "plain") for kind in KINDS]
            if read_manifest(folders[0])["files"] == read_manifest(folders[1])["files"]:
                folders.pop()  # packing saves too little and is not done
            starts: dict[Path, list[dict[str, float]]] = {folder: [] for folder in folders}
            for _, folder in turns(options.repeats, folders):
                starts[folder].append(asyncio.run(_start(folder)))
            for folder, found in starts.items():
                medians = {name: statistics.median(one[name] for one in found) for name in found[0]}
                slowest = max(one["ready_s"] for one in found)
                results.add("starts", **_sizes(folder), **medians, slowest_ready_s=slowest)
    return results


def _copy_alone(artefact: Path, models: Path, *, plain: bool) -> Path:
    """Copy an artefact into a models folder of its own, packed or plain."""
    models.mkdir()
    copy = models / artefact.name
    shutil.copytree(artefact, copy)
    pack(copy, plain=plain)
    return copy


async def _start(folder: Path) -> dict[str, float]:
    """Start a server, ask it much, and stop it."""
    texts = [" ".join(["film"] * LOAD_LENGTHS[i % len(LOAD_LENGTHS)]) + f" {i}" for i in range(LOAD_TEXTS)]
    async with our_service(folder.parent, {"log_level": "error"}) as server:
        resident = server.rss_bytes()
        for _ in range(LOAD_REQUESTS):
            await ask(server.port, classify(texts))
        under_load = server.rss_bytes()
        return {"ready_s": server.ready_s, "resident_mb": resident / 1e6, "resident_under_load_mb": under_load / 1e6}


def _sizes(folder: Path) -> dict[str, object]:
    """Return the bytes of an artefact's default graph, and what they could be."""
    manifest = read_manifest(folder)
    name = manifest["default_file"]
    return {
        "name": manifest["name"],
        "file": name,
        "stored": folder.parent.name,
        "parameters": manifest["compression"]["parameters"],
        "nonzero_parameters": manifest["compression"]["nonzero_parameters"],
        "bytes": manifest["files"][name]["bytes"],
        "encoding": manifest["files"][name].get("encoding"),
        "bound_bytes": entropy_bound(read_graph(folder, manifest, name)),
    }


def entropy_bound(graph: bytes) -> int:
    """Return the bytes of the int8 matrices at the entropy of their values, and of all else as gzip."""
    model = onnx.load_from_string(graph)
    bound, rest = 0.0, []
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype.itemsize == 1 and array.ndim == 2:
            counts = np.bincount(array.view(np.uint8).ravel(), minlength=256)
            share = counts[counts > 0] / array.size
            bound += -(share * np.log2(share)).sum() * array.size / 8
        else:
            rest.append(array.tobytes())
    del model.graph.initializer[:]
    return round(bound) + len(zlib.compress(b"".join([*rest, model.SerializeToString()]), 9))


def sections(results: Results) -> dict[str, str]:
    """Return a line for each artefact as it is stored."""
    rows = [
        [
            f"`{row['name']}`, {_kind(row)}",
            f"{row['bytes'] / 1e6:.2f} MB",
            f"{row['bound_bytes'] / 1e6:.2f} MB",
            f"{row['bytes'] / row['nonzero_parameters']:.2f}",
            f"{row['ready_s']:.2f} s (slowest {row['slowest_ready_s']:.2f})",
            f"{row['resident_mb']:.0f} MB",
            f"{row['resident_under_load_mb']:.0f} MB",
        ]
        for row in results.rows("starts")
    ]
    head = ["artefact", "graph on disk", "bound", "bytes a non-zero", "ready", "resident", "after load"]
    return {"footprint": table(head, rows)}


def _kind(row: Row) -> str:
    if row["encoding"]:
        return "gzip"
    return "plain" if row["stored"] == "plain" else "plain (gzip saves less than 10 %)"
