"""Latency of artefacts by execution provider, one thread, against a baseline, taking turns in one run; no torch needed.

python -m benchmarks.providers --baseline FOLDER models/NAME… [--providers cpu,openvino] [--data dev.tsv] [--json F]

FOLDER is the teacher in fp32 in ONNX Runtime (`python -m benchmarks.serving.teacher --usual-fusions`), and the student
that has an aim is `python -m benchmarks.serving.random_student`. A turn is five runs of one graph, the first not
counted: a server runs one graph again and again, and its weights are in the caches. In the last column every run has
another length, as in a server. With --data, the accuracy of every artefact with each provider, how many rows get ONNX
Runtime's label, and how far a score moves with other texts in its batch.
Run it with one core (`taskset -c 0`), or OpenVINO opens a stream for each. A provider that is not installed is skipped
and said so. ``python -m benchmarks.providers_table`` writes docs/providers.md from the JSON.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import json
import random
import statistics
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.origin import commit
from compression.machine import machine_name
from service.artefact import read_artefact
from service.backend import Backend
from service.cores import available_cores
from service.errors import ProviderError
from service.inference import Inference
from service.loading import load_inference
from service.settings import Precision, Provider
from service.tokenizer import TextInput, Tokens

Shape = tuple[int, int]  # texts, tokens of each

TURNS = 8
RUNS_PER_TURN = 5
BASELINE = "baseline"
BATCH_SIZE = 32
# The shapes of one turn's runs, by what the column says.
WORKLOADS: dict[str, list[Shape]] = {
    f"{batch}×{tokens}": [(batch, tokens)] * RUNS_PER_TURN for batch, tokens in ((1, 16), (1, 64), (8, 32), (32, 16))
}
WORKLOADS["1×(8 to 64)"] = [(1, tokens) for tokens in random.Random(0).sample(range(8, 65), 15)]


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
        for file in read_artefact(folder).graph_files():
            precision = read_artefact(folder).precision_of(file)
            for provider in options.providers.split(","):
                name = f"{folder.name} {precision} {provider}"
                try:
                    contenders[name] = load(folder, precision, provider)  # type: ignore[arg-type]
                except ProviderError as error:
                    print(f"skipped: {name}: {error}")
    figures = {
        "about": about(),
        "latency": measure({name: inference.backend for name, inference in contenders.items()}),
        "answers": [] if options.data is None else judge(contenders, options.data),
    }
    for rows in (figures["latency"], figures["answers"]):
        for row in rows:
            print(json.dumps(row, ensure_ascii=False))
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def about() -> dict[str, Any]:
    """Where the figures come from."""
    return {
        "command": "python -m benchmarks.providers " + " ".join(sys.argv[1:]),
        "commit": commit(),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "machine": machine_name(),
        "cores": available_cores(),
        "versions": {
            name: metadata.version(name)
            for name in ("onnxruntime", "openvino")
            if any(True for _ in metadata.distributions(name=name))
        },
    }


def load(folder: Path, precision: Precision, provider: Provider) -> Inference:
    """What the service would load."""
    artefact = read_artefact(folder)
    return load_inference(artefact, artefact.graph_file(precision), provider)


def measure(backends: dict[str, Backend]) -> list[dict[str, Any]]:
    """Median milliseconds of a run of each backend under each workload."""
    rows = []
    for workload, shapes in WORKLOADS.items():
        times: dict[str, list[float]] = {name: [] for name in backends}
        for turn in range(TURNS + 1):
            for name, backend in backends.items():
                for run, shape in enumerate(shapes):
                    ids = np.random.default_rng(run).integers(1000, 30000, shape)
                    mask, types = np.ones_like(ids), np.zeros_like(ids)
                    start = time.perf_counter()
                    backend.run(ids, mask, types)
                    if turn and run:  # the first turn makes kernels, the first run fills caches
                        times[name].append(1000 * (time.perf_counter() - start))
        rows += [
            {"name": name, "workload": workload, "median_ms": round(statistics.median(taken), 3)}
            for name, taken in times.items()
        ]
    return rows


def judge(contenders: dict[str, Inference], data: Path) -> list[dict[str, Any]]:
    """What every contender that was trained makes of the rows, one at a time and in batches."""
    with data.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    found: list[dict[str, Any]] = []
    labels: dict[str, npt.NDArray[np.int64]] = {}
    for name, inference in contenders.items():
        made = inference.artefact.manifest["compression"]
        if made["method"] == "none" and made["reached_ratio"] > 1:
            continue  # random weights answer nothing
        texts = [inference.tokenizer.tokenize(TextInput(row["sentence"])) for row in rows]
        alone, batched = scores(inference, texts, 1), scores(inference, texts, BATCH_SIZE)
        labels[name] = alone.argmax(axis=1)
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
                "score_moves_in_batches": float(f"{np.abs(batched - alone).max():.1e}"),
            }
        )
    return found


def scores(inference: Inference, texts: list[Tokens], batch_size: int) -> npt.NDArray[np.float64]:
    """Scores (texts, labels) of batches of that size, in order."""
    logits: list[Any] = []
    for start in range(0, len(texts), batch_size):
        logits += inference.run(texts[start : start + batch_size])
    for row in logits:
        if isinstance(row, Exception):
            raise row
    exponentials = np.exp(np.array(logits) - np.max(logits, axis=1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))


if __name__ == "__main__":
    main()
