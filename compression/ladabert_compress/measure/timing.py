"""How long graphs take: all of them take turns in one run on one thread."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from ladabert_compress.data.batches import Batch
from ladabert_compress.data.random_batches import Shape, random_batch

LATENCY_SHAPES: tuple[Shape, ...] = ((1, 16), (1, 64), (8, 32), (32, 16))
WARM_UP_RUNS = 2
# What a target for the latency is about: one text of 64 tokens, or of the student's limit where that is less.
TARGET_SHAPE: Shape = (1, 64)
TARGET_REPEATS = 50


class Runner(Protocol):
    """What can be timed."""

    def logits(self, batch: Batch) -> npt.NDArray[np.float32]:
        """Logits (B, classes)."""


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
        """The median of the rounds' ratios, in which whatever slows a whole round down cancels out."""
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

    With ``time.thread_time`` as the clock, other work on the machine does not count, for runners of one thread.
    """
    timings = []
    for shape in tqdm(shapes, desc="latency", unit="shape"):
        batch = random_batch(2, shape)  # which tokens it holds does not matter to a clock
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


def timed_shape(max_length: int) -> Shape:
    """The shape of a target for the latency, for a student that reads ``max_length`` tokens."""
    return TARGET_SHAPE[0], min(TARGET_SHAPE[1], max_length)


def measure_target(target_ms: float, file: str, runner: Runner, max_length: int) -> dict[str, Any]:
    """For the manifest: the target, and what the finished graph takes at the same shape."""
    shape = timed_shape(max_length)
    (measured,) = measure_latency({file: runner}, max_length, shapes=(shape,), repeats=TARGET_REPEATS)
    return {**measured, "target_ms": target_ms}
