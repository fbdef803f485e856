"""Latency of artefacts by execution provider, one thread, against a baseline, taking turns in one run; no torch needed.

python -m benchmarks providers --baseline FOLDER models/NAME… [--providers cpu,openvino] [--data dev.tsv] [--write]

FOLDER is the teacher in fp32 in ONNX Runtime (`benchmarks artefact teacher --usual-fusions`); the student with an aim
is `benchmarks artefact random`. A turn is five runs of one graph, the first not counted: a server runs one graph again
and again, and its weights are in the caches. In the last column every run has another length, as in a server. With
--data, the accuracy of every artefact with each provider, how many rows get ONNX Runtime's label, and how far a score
moves with other texts in its batch. Run it with one core (`taskset -c 0`), or OpenVINO opens a stream for each. A
provider that is not installed is skipped and said so.
"""

import argparse
import csv
import random
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.harness.pages import MISSING, table
from benchmarks.harness.results import Results, origin
from benchmarks.harness.statistics import turns
from ladabert_serve.errors import ProviderError
from ladabert_serve.models.artefact import Artefact, read_artefact
from ladabert_serve.models.inference import Inference
from ladabert_serve.models.loading import load_inference
from ladabert_serve.models.tokenizer import TextInput, Tokens

TURNS = 8
RUNS_PER_TURN = 5
BASELINE = "baseline"
BATCH_SIZE = 32
# The shapes (texts, tokens of each) of one turn's runs, by what the column says.
WORKLOADS: dict[str, list[tuple[int, int]]] = {
    f"{batch}×{tokens}": [(batch, tokens)] * RUNS_PER_TURN for batch, tokens in ((1, 16), (1, 64), (8, 32), (32, 16))
}
AIM_AT = tuple(WORKLOADS)
WORKLOADS["1×(8 to 64)"] = [(1, tokens) for tokens in random.Random(0).sample(range(8, 65), 15)]
STUDENT = "latency-x10 fp32 openvino"  # that of `benchmarks artefact random`
AIM = 8  # times the baseline at each of these shapes


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what the command is told."""
    parser.add_argument("artefacts", type=Path, nargs="+", metavar="models/NAME")
    parser.add_argument("--baseline", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--providers", default="cpu,openvino")
    parser.add_argument("--data", type=Path, help="TSV with sentence and label, for accuracy and agreement")


def measure(options: argparse.Namespace) -> Results:
    """Time every graph with every provider, and judge what they answer where there are rows."""
    results = Results("providers", origin("onnxruntime", "openvino"), {}, {"latency": [], "predictions": []})
    baseline = _read(options.baseline)
    contenders = {BASELINE: load_inference(baseline, baseline.graph_file("fp32"), "cpu")}
    for folder in options.artefacts:
        artefact = _read(folder)
        for file in artefact.graph_files():
            precision = artefact.precision_of(file)
            for provider in options.providers.split(","):
                name = f"{folder.name} {precision} {provider}"
                try:
                    contenders[name] = load_inference(artefact, file, provider)
                except ProviderError as error:
                    print(f"skipped: {name}: {error}")
    _time(results, contenders)
    if options.data is not None:
        _judge(results, contenders, options.data)
    return results


def _read(folder: Path) -> Artefact:
    return read_artefact(folder)


def _time(results: Results, contenders: dict[str, Inference]) -> None:
    """Add the median milliseconds of a run of each contender under each workload."""
    for workload, shapes in WORKLOADS.items():
        times: dict[str, list[float]] = {name: [] for name in contenders}
        for turn, name in turns(TURNS + 1, list(contenders)):
            for run, shape in enumerate(shapes):
                ids = np.random.default_rng(run).integers(1000, 30000, shape)
                mask, types = np.ones_like(ids), np.zeros_like(ids)
                start = time.perf_counter()
                contenders[name].backend.run(ids, mask, types)
                if turn and run:  # the first turn makes kernels, the first run fills caches
                    times[name].append(1000 * (time.perf_counter() - start))
        for name, taken in times.items():
            results.add("latency", name=name, workload=workload, median_ms=statistics.median(taken))


def _judge(results: Results, contenders: dict[str, Inference], data: Path) -> None:
    """Add what every contender that was trained makes of the rows, one at a time and in batches."""
    with data.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    labels: dict[str, npt.NDArray[np.int64]] = {}
    for name, inference in contenders.items():
        made = inference.artefact.manifest["compression"]
        if made["method"] == "none" and made["reached_ratio"] > 1:
            continue  # random weights answer nothing
        texts = [inference.tokenizer.tokenize(TextInput(row["sentence"])) for row in rows]
        alone, batched = _scores(inference, texts, 1), _scores(inference, texts, BATCH_SIZE)
        labels[name] = alone.argmax(axis=1)
        known = inference.artefact.labels
        truth = [known.index(row["label"]) if row["label"] in known else int(row["label"]) for row in rows]
        reference = labels.get(" ".join([*name.split()[:-1], "cpu"]))
        results.add(
            "predictions",
            name=name,
            rows=len(rows),
            accuracy=float((labels[name] == truth).mean()),
            same_label_as_onnx_runtime=None if reference is None else float((labels[name] == reference).mean()),
            score_moves_in_batches=float(f"{np.abs(batched - alone).max():.1e}"),
        )


def _scores(inference: Inference, texts: list[Tokens], batch_size: int) -> npt.NDArray[np.float64]:
    """Return scores (texts, labels) of batches of that size, in order."""
    logits: list[Any] = []
    for start in range(0, len(texts), batch_size):
        logits += inference.run(texts[start : start + batch_size])
    for row in logits:
        if isinstance(row, Exception):
            raise row
    exponentials = np.exp(np.array(logits) - np.max(logits, axis=1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))


def sections(results: Results) -> dict[str, str]:
    """Return where the figures come from, whether the aim is met, the medians, and what was answered."""
    about = results.origin
    told = f"{results.told()}.\n{about['machine']}, one thread on {about['cores']} of them; {results.versions()}.\n"
    medians = {(row["name"], row["workload"]): row["median_ms"] for row in results.rows("latency")}
    names, workloads = results.names("latency", "name"), results.names("latency", "workload")
    verdict = [_verdict(medians)] if all((STUDENT, shape) in medians for shape in AIM_AT) else []
    latency = table(
        ["median ms (times the baseline's speed)", *workloads],
        (
            [name, *(f"{medians[name, w]:.2f} ({medians[BASELINE, w] / medians[name, w]:.1f}×)" for w in workloads)]
            for name in names
        ),
    )
    predictions = [table(_head(results), _predictions(results))] if results.rows("predictions") else []
    return {"providers": "\n".join([told, *verdict, latency, *predictions])}


def _verdict(medians: dict[tuple[str, str], float]) -> str:
    ratios = {shape: medians[BASELINE, shape] / medians[STUDENT, shape] for shape in AIM_AT}
    reached = ", ".join(f"{ratio:.1f} at {shape}" for shape, ratio in ratios.items())
    short = [shape for shape, ratio in ratios.items() if ratio < AIM]
    verdict = f"missed at {' and '.join(short)}" if short else "met"
    return f"The aim, {AIM} times the baseline's speed for `{STUDENT}`, is **{verdict}**: {reached}.\n"


def _head(results: Results) -> list[str]:
    rows = f"{results.values('predictions', 'rows')[0]} rows of dev, one at a time"
    moves = f"a score moves in batches of {BATCH_SIZE} by up to"
    return [rows, "accuracy", "same label as ONNX Runtime", moves]


def _predictions(results: Results) -> list[list[str]]:
    def share(value: float | None) -> str:
        return MISSING if value is None else f"{value:.2%}"

    return [
        [
            row["name"],
            share(row["accuracy"]),
            share(row["same_label_as_onnx_runtime"]),
            f"{row['score_moves_in_batches']:g}",
        ]
        for row in results.rows("predictions")
    ]
