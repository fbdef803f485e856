"""What an artefact costs before the first request: bytes on disk, time until the server is ready, memory it holds.

python -m benchmarks.serving.footprint models/NAME… [--repeats N] [--json F]

Each artefact is served alone by the real server, packed and plain in turns. Ready is when the server says that it
listens, models loaded and warmed up, counted from the start of the process; resident memory is read then, and again
after a list of 256 texts of every length was answered four times. `bound` is what the graph's int8 weights would
take if each were coded in as many bits as its matrix's distribution of values needs (zeros included), with the rest
of the graph as gzip.
"""

from __future__ import annotations

import argparse
import json
import lzma
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from benchmarks.origin import commit
from benchmarks.serving.processes import PROC
from compression.artefact import SCHEMA_FILE, pack, read_graph, read_manifest
from compression.machine import machine_name

LOAD_LENGTHS = (4, 12, 28, 60, 120)  # words in a text
LOAD_REQUESTS = 4
LOAD_TEXTS = 256


@dataclass(frozen=True, slots=True)
class Start:
    """One start of the server."""

    ready_s: float
    resident_mb: float
    resident_under_load_mb: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artefacts", type=Path, nargs="+", metavar="models/NAME")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        for artefact in options.artefacts:
            folders = {
                stored: copy_alone(artefact, Path(temporary) / stored, plain=stored == "plain")
                for stored in ("plain", "packed")
            }
            if read_manifest(folders["plain"])["files"] == read_manifest(folders["packed"])["files"]:
                shutil.rmtree(folders.pop("packed").parent)  # packing saves too little and is not done
            starts: dict[str, list[Start]] = {stored: [] for stored in folders}
            for _ in range(options.repeats):
                for stored, folder in folders.items():
                    starts[stored].append(start(folder.parent, artefact.name))
            rows += [row(folder, stored, starts[stored]) for stored, folder in folders.items()]
            for folder in folders.values():
                shutil.rmtree(folder.parent)
    print(table(rows))
    if options.json is not None:
        about = {"machine": machine_name(), "commit": commit(), "command": " ".join(["python -m", *command()])}
        options.json.write_text(json.dumps({"about": about, "rows": rows}, indent=2) + "\n", encoding="utf-8")


def copy_alone(artefact: Path, models: Path, *, plain: bool) -> Path:
    """Copies an artefact into a models folder of its own, packed or plain."""
    models.mkdir()
    shutil.copy(artefact.resolve().parent / SCHEMA_FILE, models / SCHEMA_FILE)
    shutil.copytree(artefact, models / artefact.name)
    pack(models / artefact.name, plain=plain)
    return models / artefact.name


def start(models: Path, name: str) -> Start:
    """Starts a server, asks it much, and stops it."""
    with serving(models) as (process, url, ready_s):
        resident_mb = resident(process.pid)
        texts = [
            " ".join(["film"] * LOAD_LENGTHS[index % len(LOAD_LENGTHS)]) + f" {index}" for index in range(LOAD_TEXTS)
        ]
        body = json.dumps({"inputs": texts, "model": name}).encode()
        for _ in range(LOAD_REQUESTS):
            request = urllib.request.Request(f"{url}/classify", body, {"content-type": "application/json"})
            with urllib.request.urlopen(request, timeout=120) as response:
                response.read()
        return Start(ready_s, resident_mb, resident(process.pid))


@contextmanager
def serving(models: Path) -> Iterator[tuple[subprocess.Popen[str], str, float]]:
    """A server of this folder, its address, and how long it took to listen."""
    command = [sys.executable, "-m", "service", "--models", str(models), "--port", "0", "--provider", "cpu"]
    begin = time.perf_counter()
    process = subprocess.Popen([*command, "--log-level", "error"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        address = None
        while address is None:
            line = process.stdout.readline()
            if not line:
                raise SystemExit(f"the server of {models} did not start")
            address = re.search(r"listening on (\S+)", line)
        yield process, address[1], time.perf_counter() - begin
    finally:
        process.terminate()
        process.wait(timeout=60)


def resident(pid: int) -> float:
    """Megabytes (10⁶ bytes) that a process holds in memory, pages of shared libraries included."""
    found = re.search(r"^VmRSS:\s+(\d+) kB$", (PROC / str(pid) / "status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024 / 1e6


def row(folder: Path, stored: str, starts: list[Start]) -> dict[str, Any]:
    """The figures of one artefact, stored in one way."""
    manifest = read_manifest(folder)
    name = manifest["default_file"]
    content = read_graph(folder, manifest, name)
    return {
        "name": manifest["name"],
        "file": name,
        "stored": stored,
        "parameters": manifest["compression"]["parameters"],
        "nonzero_parameters": manifest["compression"]["nonzero_parameters"],
        "bytes": manifest["files"][name]["bytes"],
        "encoding": manifest["files"][name].get("encoding"),
        "bound_bytes": entropy_bound(content),
        "xz_bytes": len(lzma.compress(content, preset=9 | lzma.PRESET_EXTREME)),
        **{key: statistics.median(asdict(one)[key] for one in starts) for key in asdict(starts[0])},
        "slowest_ready_s": max(one.ready_s for one in starts),
    }


def entropy_bound(graph: bytes) -> int:
    """Bytes of the int8 matrices at the entropy of their values, and of all else as gzip."""
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


def table(rows: list[dict[str, Any]]) -> str:
    """The figures in Markdown."""
    lines = [
        "| artefact | graph on disk | bound | bytes a non-zero | ready | resident | after load |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in rows:
        how = (
            "gzip" if one["encoding"] else "plain" if one["stored"] == "plain" else "plain (gzip saves less than 10 %)"
        )
        lines.append(
            f"| `{one['name']}`, {how} | {one['bytes'] / 1e6:.2f} MB | {one['bound_bytes'] / 1e6:.2f} MB "
            f"| {one['bytes'] / one['nonzero_parameters']:.2f} | {one['ready_s']:.2f} s "
            f"(slowest {one['slowest_ready_s']:.2f}) "
            f"| {one['resident_mb']:.0f} MB | {one['resident_under_load_mb']:.0f} MB |"
        )
    return "\n".join(lines)


def command() -> list[str]:
    """What was run, without this machine's folders."""
    return [
        "benchmarks.serving.footprint",
        *(argument for argument in sys.argv[1:] if not Path(argument).is_absolute()),
    ]


if __name__ == "__main__":
    main()
