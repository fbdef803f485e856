"""How long graphs take: all of them in turns, in one run, on one thread."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from compression.batches import Batch

Shape = tuple[int, int]  # texts, tokens of each

LATENCY_SHAPES: tuple[Shape, ...] = ((1, 16), (1, 64), (8, 32), (32, 16))
WARM_UP_RUNS = 2


class Runner(Protocol):
    """What can be timed."""

    def logits(self, batch: Batch) -> npt.NDArray[np.float32]:
        """Logits (B, classes)."""
        ...


@dataclass(frozen=True)
class Timing:
    """The milliseconds of every run of one runner at one shape, in the order of the rounds."""

    name: str
    shape: Shape
    milliseconds: tuple[float, ...]

    @property
    def median_ms(self) -> float:
        """The median of the runs."""
        return statistics.median(self.milliseconds)

    def times_as_fast_as(self, baseline: Timing) -> float:
        """The median of the rounds' ratios: what slows a whole round down is in both."""
        pairs = zip(baseline.milliseconds, self.milliseconds, strict=True)
        return statistics.median(other / own for other, own in pairs)


def time_in_turns(
    runners: Mapping[str, Runner],
    shapes: Sequence[Shape] = LATENCY_SHAPES,
    *,
    repeats: int = 20,
    clock: Callable[[], float] = time.perf_counter,
) -> list[Timing]:
    """Every runner at every shape (texts, tokens), one run each a round; the first two rounds warm up.

    ``time.thread_time`` as the clock counts what one-thread runners compute, whatever else the machine does.
    """
    timings = []
    for shape in tqdm(shapes, desc="latency", unit="shape"):
        batch = ones(shape)
        taken: dict[str, list[float]] = {name: [] for name in runners}
        for repeat in range(repeats + WARM_UP_RUNS):
            for name, runner in runners.items():
                start = clock()
                runner.logits(batch)
                if repeat >= WARM_UP_RUNS:
                    taken[name].append(1000 * (clock() - start))
        timings += [Timing(name, shape, tuple(milliseconds)) for name, milliseconds in taken.items()]
    return timings


def measure_latency(
    runners: Mapping[str, Runner], max_length: int, *, shapes: Sequence[Shape] = LATENCY_SHAPES, repeats: int = 20
) -> list[dict[str, Any]]:
    """The manifest's table: median milliseconds of each file at each shape that ``max_length`` admits."""
    fitting = [(texts, tokens) for texts, tokens in shapes if tokens <= max_length]
    return [
        {
            "file": timing.name,
            "batch": timing.shape[0],
            "tokens": timing.shape[1],
            "median_ms": round(timing.median_ms, 3),
        }
        for timing in time_in_turns(runners, fitting, repeats=repeats)
    ]


def ones(shape: Shape) -> Batch:
    """A batch without padding; which tokens it holds does not matter to a clock."""
    ids = torch.ones(shape, dtype=torch.int64)
    return Batch(ids, ids, torch.zeros_like(ids), ids[:, 0])
