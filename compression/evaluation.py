"""Measures a graph as the server runs it: ONNX Runtime, one thread, real texts."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from compression.answers import Logits, accuracy, decide, share_of_equal_rows
from compression.batches import Batch, EncodedTexts, Labels, evaluation_batches
from compression.calibration import expected_calibration_error
from compression.onnx_session import OnnxSession

LATENCY_SHAPES = ((1, 16), (1, 64), (8, 32), (32, 16))


@dataclass(frozen=True)
class Scores:
    """What logits are worth against labels; ``agreement`` is with the teacher, where it was asked.

    A row with several labels is right, or agrees, where all of them do.
    """

    accuracy: float
    expected_calibration_error: float  # of the scores as served, the temperature applied
    uncalibrated_error: float  # of the logits as they are
    agreement: float | None = None


def onnx_logits(session: OnnxSession, data: EncodedTexts, batch_size: int = 32) -> Logits:
    """Logits (N, classes) in the rows' order, from length-sorted batches."""
    logits: dict[int, Logits] = {}
    for rows, batch in evaluation_batches(data, batch_size):
        logits.update(zip(rows, session.logits(batch), strict=True))
    return np.stack([logits[row] for row in range(len(data))])


def score(logits: Logits, labels: Labels, teacher_logits: Logits | None = None, *, temperature: float = 1.0) -> Scores:
    """Accuracy, calibration and, given the teacher's logits, the share of rows with the same answer."""
    truth = np.array(labels)
    agreement = None
    if teacher_logits is not None:
        agreement = share_of_equal_rows(decide(logits, truth), decide(teacher_logits, truth))
    return Scores(
        accuracy(logits, truth),
        expected_calibration_error(logits, truth, temperature),
        expected_calibration_error(logits, truth),
        agreement,
    )


def measure_latency(
    sessions: Mapping[str, OnnxSession],
    max_length: int,
    *,
    shapes: Sequence[tuple[int, int]] = LATENCY_SHAPES,
    repeats: int = 20,
) -> list[dict[str, Any]]:
    """Median milliseconds of each file at each shape (batch, tokens) it can take, the files taking turns."""
    table = []
    fitting = [(batch_size, tokens) for batch_size, tokens in shapes if tokens <= max_length]
    for batch_size, tokens in tqdm(fitting, desc="latency", unit="shape"):
        ids = torch.ones((batch_size, tokens), dtype=torch.int64)  # which tokens they are does not matter
        batch = Batch(ids, ids, torch.zeros_like(ids), ids[:, 0])
        times: dict[str, list[float]] = {file: [] for file in sessions}
        for repeat in range(repeats + 2):
            for file, session in sessions.items():
                start = time.perf_counter()
                session.logits(batch)
                if repeat >= 2:  # the first two warm up
                    times[file].append(time.perf_counter() - start)
        table += [
            {"file": file, "batch": batch_size, "tokens": tokens, "median_ms": round(1000 * statistics.median(t), 3)}
            for file, t in times.items()
        ]
    return table


def machine_name() -> str:
    """The processor's name and number of cores."""
    processor = platform.processor()
    cpuinfo = Path("/proc/cpuinfo")
    cores = 0
    if cpuinfo.is_file():
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        processor, cores = (names[0] if names else processor), len(names)
    return f"{processor or platform.machine()}, {cores or 'unknown number of'} cores"
