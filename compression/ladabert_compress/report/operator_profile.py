"""The time of a graph, operator by operator, from ONNX Runtime's profiler."""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from ladabert_compress.data.random_batches import Shape, random_batch
from ladabert_compress.graph.session import OnnxSession
from ladabert_compress.measure.timing import WARM_UP_RUNS


@dataclass(frozen=True)
class OperatorTime:
    """All nodes of one operator in one run of the graph."""

    operator: str
    nodes: int
    ms: float
    share: float  # of all operators


def profile_operators(model: Path | bytes, shape: Shape, *, runs: int = 10) -> list[OperatorTime]:
    """Mean milliseconds of each operator at one shape, the longest first; profiling itself slows small ones down."""
    batch = random_batch(2, shape)
    with tempfile.TemporaryDirectory() as folder:
        session = OnnxSession(model, profile=Path(folder) / "profile")
        for _ in range(WARM_UP_RUNS + runs):
            session.logits(batch)
        events = json.loads(session.end_profile().read_text(encoding="utf-8"))
    seen: dict[str, int] = defaultdict(int)
    nodes: dict[str, set[str]] = defaultdict(set)
    microseconds: dict[str, float] = defaultdict(float)
    for event in events:
        if event.get("cat") != "Node" or not event["name"].endswith("_kernel_time"):
            continue
        seen[event["name"]] += 1
        if seen[event["name"]] > WARM_UP_RUNS:
            operator = event["args"]["op_name"]
            nodes[operator].add(event["name"])
            microseconds[operator] += event["dur"]
    total = sum(microseconds.values()) or 1.0
    found = [
        OperatorTime(operator, len(nodes[operator]), round(taken / runs / 1000, 4), round(taken / total, 4))
        for operator, taken in microseconds.items()
    ]
    return sorted(found, key=lambda entry: -entry.ms)
