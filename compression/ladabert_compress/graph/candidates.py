"""Chooses the graph that is fastest on the target, by measuring the candidates or by rule."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import onnx
from transformers import BertForSequenceClassification

from ladabert_compress.data.random_batches import Shape
from ladabert_compress.graph.encoder import build_bert_graph
from ladabert_compress.graph.int8_scales import Ranges
from ladabert_compress.graph.plan import CUDA_PLAN, GraphPlan, cpu_plans
from ladabert_compress.graph.session import OnnxSession
from ladabert_compress.measure.timing import LATENCY_SHAPES, Timing, time_in_turns

Target = Literal["cpu", "cuda"]

# A later candidate has to be this much faster than an earlier one: noise alone changes no file.
WORTH_CHANGING = 0.98
REPEATS = 10


@dataclass(frozen=True)
class Candidate:
    """One way to write a graph, and its median milliseconds of CPU time at each shape, if it was measured."""

    plan: GraphPlan
    median_ms: Mapping[Shape, float]


@dataclass(frozen=True)
class GraphChoice:
    """The candidates of one precision, the best first."""

    candidates: tuple[Candidate, ...]

    @property
    def plan(self) -> GraphPlan:
        """The plan to write."""
        return self.candidates[0].plan

    def to_dict(self) -> list[dict[str, Any]]:
        """The measured table for the manifest."""
        return [
            {
                **candidate.plan.to_dict(),
                "median_ms": {f"{texts}x{tokens}": round(ms, 3) for (texts, tokens), ms in candidate.median_ms.items()},
            }
            for candidate in self.candidates
        ]


def candidate_graphs(
    model: BertForSequenceClassification,
    task: str,
    ranges: Ranges | None,
    target: Target,
    max_length: int | None = None,
    weight_bits: int = 8,
) -> dict[GraphPlan, onnx.ModelProto]:
    """The graphs to choose from, without those that come out the same as an earlier one."""
    heads = model.config.num_attention_heads
    plans = [CUDA_PLAN] if target == "cuda" else cpu_plans(model.config.hidden_size // heads)
    graphs: dict[GraphPlan, onnx.ModelProto] = {}
    seen: set[bytes] = set()
    for plan in (replace(plan, weight_bits=weight_bits) for plan in plans):
        graph = build_bert_graph(model, task, ranges, plan, max_length)
        content = hashlib.sha256(graph.SerializeToString(deterministic=True)).digest()  # a graph may have a gigabyte
        if content not in seen:
            seen.add(content)
            graphs[plan] = graph
    return graphs


def choose_graph(
    graphs: Mapping[GraphPlan, onnx.ModelProto],
    max_length: int,
    *,
    shapes: Sequence[Shape] = LATENCY_SHAPES,
    repeats: int = REPEATS,
) -> GraphChoice:
    """The fastest by the geometric mean over the shapes that ``max_length`` admits; a single one is not measured.

    What counts is the thread's CPU time, which other work on the machine changes little.
    """
    shapes = [shape for shape in shapes if shape[1] <= max_length]
    if len(graphs) == 1 or not shapes:
        return GraphChoice(tuple(Candidate(plan, {}) for plan in graphs))
    sessions = {str(index): OnnxSession(graph.SerializeToString()) for index, graph in enumerate(graphs.values())}
    return rank_candidates(list(graphs), time_in_turns(sessions, shapes, repeats=repeats, clock=time.thread_time))


def rank_candidates(plans: Sequence[GraphPlan], timings: Sequence[Timing]) -> GraphChoice:
    """Orders the plans by their timings, which are named by the plans' indices; near-equal ones stay in order."""
    base = {timing.shape: timing for timing in timings if timing.name == "0"}
    speeds: dict[str, list[float]] = {}
    for timing in timings:
        speeds.setdefault(timing.name, []).append(timing.times_as_fast_as(base[timing.shape]))
    means = {name: math.exp(sum(map(math.log, values)) / len(values)) for name, values in speeds.items()}
    best = "0"
    for name in means:
        if means[best] < WORTH_CHANGING * means[name]:
            best = name
    order = [best, *sorted((name for name in means if name != best), key=lambda name: -means[name])]
    medians: dict[str, dict[Shape, float]] = {}
    for timing in timings:
        medians.setdefault(timing.name, {})[timing.shape] = timing.median_ms
    return GraphChoice(tuple(Candidate(plans[int(name)], medians[name]) for name in order))
