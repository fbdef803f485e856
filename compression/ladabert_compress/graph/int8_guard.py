"""Which matrix products of an int8 graph stay in fp32, so that its predictions stay those of the fp32 graph."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from tqdm import tqdm
from transformers import BertForSequenceClassification

from ladabert_compress.data.batches import EncodedTexts
from ladabert_compress.graph.encoder import build_bert_graph, quantised_products
from ladabert_compress.graph.int8_scales import Ranges
from ladabert_compress.graph.plan import GraphPlan
from ladabert_compress.graph.session import OnnxSession, onnx_logits
from ladabert_compress.measure.predictions import Logits, are_scores

GUARD_ROWS = 256

ErrorOf = Callable[[frozenset[str]], float]


@dataclass(frozen=True)
class Guarded:
    """Products that stay in fp32, and the error of the int8 graph with all in int8 and with these in fp32."""

    fp32_products: frozenset[str]
    error_before: float
    error_after: float


def guard_int8(
    model: BertForSequenceClassification,
    task: str,
    ranges: Ranges,
    plan: GraphPlan,
    held_out: EncodedTexts,
    tolerance: float,
) -> Guarded:
    """The smallest part of the graph in fp32 with which its logits stay within ``tolerance`` of the fp32 graph's.

    Args:
        model: the student.
        task: the graph's.
        ranges: of the activations.
        plan: of the graph; its own ``fp32_products`` do not matter.
        held_out: rows to measure on, 256 of them; preferably rows that changed no weight.
        tolerance: the error allowed: the root mean square of the logits' differences over that of the logits. In a
            single-label task, where a shift of all logits changes nothing, each row's mean is subtracted first; in a
            regression, the mean of all rows.
    """
    rows = held_out.select(range(min(GUARD_ROWS, len(held_out))))
    centre = 0.0

    def logits_of(ranges: Ranges | None, fp32_products: frozenset[str]) -> Logits:
        graph = build_bert_graph(model, task, ranges, replace(plan, fp32_products=fp32_products))
        logits = onnx_logits(OnnxSession(graph.SerializeToString()), rows)
        if are_scores(rows.labels):  # a shift of all rows is no error of the scale
            return logits - centre
        return logits if rows.labels.ndim == 2 else logits - logits.mean(axis=1, keepdims=True)

    expected = logits_of(None, frozenset())
    if are_scores(rows.labels):
        centre = float(expected.mean())
        expected = expected - centre

    def error_of(fp32_products: frozenset[str]) -> float:
        difference = logits_of(ranges, fp32_products) - expected
        return float(np.sqrt(np.square(difference).mean() / max(np.square(expected).mean(), 1e-12)))

    return choose_products(quantised_products(model, task, ranges, plan), error_of, tolerance)


def choose_products(products: dict[str, int], error_of: ErrorOf, tolerance: float) -> Guarded:
    """Takes products out of int8 until the error is within the tolerance, or none is left.

    Args:
        products: by name, the weights of each: what it costs to have it in fp32.
        error_of: the error of the graph with the named products in fp32.
        tolerance: the error allowed.
    """
    everything = frozenset(products)
    before = after = error_of(frozenset())
    chosen: list[str] = []
    if before > tolerance:
        floor = error_of(everything)  # the tables are int8 in any case
        worth = {
            name: max(error_of(everything - {name}) ** 2 - floor**2, 0.0)
            for name in tqdm(products, desc="int8 guard", unit="product")
        }
        order = sorted(products, key=lambda name: -worth[name] / products[name])
        # Errors of different products add up like independent ones, nearly; the loop corrects for the rest.
        while order and after > tolerance:
            left = math.fsum(worth[name] for name in order) + floor**2
            take = _until(order, worth, left - tolerance**2) if not chosen else 1
            chosen += order[:take]
            order = order[take:]
            after = error_of(frozenset(chosen))
    return Guarded(frozenset(chosen), before, after)


def _until(order: Sequence[str], worth: dict[str, float], enough: float) -> int:
    """How many of the first are together worth ``enough``, at least one."""
    total = 0.0
    for count, name in enumerate(order, 1):
        total += worth[name]
        if total >= enough:
            return count
    return len(order)
