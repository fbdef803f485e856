"""Latency of artefacts by execution provider, one thread, against a baseline, taking turns in one run; no torch needed.

python -m benchmarks.providers --baseline FOLDER models/NAME… [--providers cpu,openvino] [--data dev.tsv] [--json F]

FOLDER is the teacher at full size (`python -m benchmarks.serving.teacher`), in fp32 in ONNX Runtime. A turn is five
runs of one graph, the first not counted: a server runs one graph again and again, and its weights are in the caches.
With --data, the accuracy of every artefact with each provider, and how many rows get ONNX Runtime's label.
Run it with one core (`taskset -c 0`), or OpenVINO opens a stream for each. A provider that is not installed is skipped
and said so.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.origin import commit, machine_name
from service.artefact import Artefact, read_artefact, read_schema
from service.backend import Backend
from service.cores import available_cores
from service.errors import ProviderError
from service.inference import Inference
from service.loading import load_inference
from service.settings import Precision, Provider
from service.tokenizer import TextInput

SHAPES = ((1, 16), (1, 64), (8, 32), (32, 16))
TURNS = 8
RUNS_PER_TURN = 5
BASELINE = "baseline"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artefacts", type=Path, nargs="+", metavar="models/NAME")
    parser.add_argument("--baseline", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--providers", default="cpu,openvino")
    parser.add_argument("--data", type=Path, help="TSV with sentence and label, for accuracy and agreement")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    contenders = {BASELINE: load(options.baseline, "fp32", "cpu")}
    for folder in options.artefacts:
        for file in read(folder).graph_files():
            precision = read(folder).precision_of(file)
            for provider in options.providers.split(","):
                name = f"{folder.name} {precision} {provider}"
                try:
                    contenders[name] = load(folder, precision, provider)  # type: ignore[arg-type]
                except ProviderError as error:
                    print(f"skipped: {name}: {error}")
    table = measure({name: inference.backend for name, inference in contenders.items()})
    print(f"median ms (times the baseline's speed), {available_cores()} core(s), {machine_name()}")
    print("| graph and provider | " + " | ".join(f"{batch}×{tokens}" for batch, tokens in SHAPES) + " |")
    print("|---|" + "---|" * len(SHAPES))
    for name, medians in table.items():
        cells = [f"{ms:.2f} ({base / ms:.1f}×)" for ms, base in zip(medians, table[BASELINE], strict=True)]
        print(f"| {name} | " + " | ".join(cells) + " |")
    answers = [] if options.data is None else judge(contenders, options.data)
    for row in answers:
        print(json.dumps(row))
    if options.json is not None:
        rows = [
            {"name": name, "batch": batch, "tokens": tokens, "median_ms": round(ms, 3)}
            for name, medians in table.items()
            for (batch, tokens), ms in zip(SHAPES, medians, strict=True)
        ]
        about = {"machine": machine_name(), "cores": available_cores(), "commit": commit()}
        figures = {"about": about, "latency": rows, "answers": answers}
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def read(folder: Path) -> Artefact:
    """An artefact, verified."""
    return read_artefact(folder, read_schema(folder.parent))


def load(folder: Path, precision: Precision, provider: Provider) -> Inference:
    """What the service would load."""
    artefact = read(folder)
    return load_inference(artefact, artefact.graph_file(precision), provider)


def measure(backends: dict[str, Backend]) -> dict[str, list[float]]:
    """Median milliseconds of each backend at each shape."""
    medians: dict[str, list[float]] = {name: [] for name in backends}
    for shape in SHAPES:
        ids = np.random.default_rng(0).integers(1000, 30000, shape)
        mask, types = np.ones_like(ids), np.zeros_like(ids)
        times: dict[str, list[float]] = {name: [] for name in backends}
        for turn in range(TURNS + 1):
            for name, backend in backends.items():
                for run in range(RUNS_PER_TURN):
                    start = time.perf_counter()
                    backend.run(ids, mask, types)
                    if turn and run:  # the first turn makes kernels, the first run fills caches
                        times[name].append(1000 * (time.perf_counter() - start))
        for name in backends:
            medians[name].append(statistics.median(times[name]))
    return medians


def judge(contenders: dict[str, Inference], data: Path) -> list[dict[str, Any]]:
    """Accuracy of every contender that was trained, and its agreement with the same graph in ONNX Runtime."""
    with data.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    found: list[dict[str, Any]] = []
    labels: dict[str, npt.NDArray[np.int64]] = {}
    for name, inference in contenders.items():
        made = inference.artefact.manifest["compression"]
        if made["method"] == "none" and made["reached_ratio"] > 1:
            continue  # random weights answer nothing
        scores = []
        for row in rows:
            (logits,) = inference.run([inference.tokenizer.tokenize(TextInput(row["sentence"]))])
            if isinstance(logits, Exception):
                raise logits
            scores.append(logits)
        labels[name] = np.array(scores).argmax(axis=1)
        known = inference.artefact.labels
        truth = [known.index(row["label"]) if row["label"] in known else int(row["label"]) for row in rows]
        reference = labels.get(" ".join([*name.split()[:-1], "cpu"]))
        found.append(
            {
                "name": name,
                "rows": len(rows),
                "accuracy": round(float((labels[name] == truth).mean()), 4),
                "same_label_as_onnx_runtime": None
                if reference is None
                else round(float((labels[name] == reference).mean()), 4),
            }
        )
    return found


if __name__ == "__main__":
    main()
