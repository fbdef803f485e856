from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper

from ladabert_compress.graph.encoder import build_bert_graph, quantised_products
from ladabert_compress.graph.int8_guard import choose_products, guard_int8
from ladabert_compress.graph.int8_scales import Range, measure_activation_ranges
from ladabert_compress.graph.plan import GraphPlan
from ladabert_compress.graph.session import OnnxSession
from ladabert_compress.training.run import CompressionResult

Errors = dict[str, float]


@given(
    errors=st.dictionaries(st.text("abcdef", min_size=1, max_size=2), st.floats(0, 1), min_size=1),
    tolerance=st.floats(0.001, 1),
)
def test_what_stays_in_int8_is_within_the_tolerance(errors: Errors, tolerance: float) -> None:
    def error_of(in_fp32: frozenset[str]) -> float:
        return math.sqrt(math.fsum(error**2 for name, error in errors.items() if name not in in_fp32))

    found = choose_products(dict.fromkeys(errors, 10), error_of, tolerance)
    assert found.error_after <= tolerance
    assert found.error_after == error_of(found.fp32_products)
    if error_of(frozenset()) <= tolerance:
        assert not found.fp32_products  # nothing is given up without need


def test_the_cheap_product_goes_first_where_two_hurt_alike() -> None:
    def error_of(in_fp32: frozenset[str]) -> float:
        return 0.1 * math.sqrt(2 - len(in_fp32))

    assert choose_products({"large": 1000, "small": 10}, error_of, 0.11).fp32_products == {"small"}


def test_an_error_that_nothing_mends_ends_with_everything_in_fp32() -> None:
    assert choose_products({"a": 1, "b": 1}, lambda _: 1.0, 0.1).fp32_products == {"a", "b"}


def test_a_product_with_a_useless_scale_is_found(result: CompressionResult) -> None:
    model, data = result.student.model, result.train_data
    ranges = measure_activation_ranges(model, [data.batch(range(32))])
    spoilt = "bert.encoder.layer.0.intermediate.dense"
    ranges[spoilt] = Range(-1e6, 1e6)
    guarded = guard_int8(model, "single", ranges, GraphPlan("plain"), data, 0.02)
    assert spoilt in guarded.fp32_products
    assert guarded.error_after <= 0.02 < guarded.error_before


def test_what_an_int8_graph_computes_in_fp32_is_stored_in_half_the_bytes(result: CompressionResult) -> None:
    model, batch = result.student.model, result.train_data.batch(range(32))
    ranges = measure_activation_ranges(model, [batch])
    everything = frozenset(quantised_products(model, "single", ranges, GraphPlan()))
    careful = build_bert_graph(model, "single", ranges, GraphPlan(fp32_products=everything))
    plain = build_bert_graph(model, "single")
    weights = {entry.name: numpy_helper.to_array(entry) for entry in careful.graph.initializer}
    stored = [weights[f"{entry.name}.fp16"] for entry in plain.graph.initializer if f"{entry.name}.fp16" in weights]
    assert len(stored) > 10
    assert all(weight.dtype == np.float16 for weight in stored)
    expected, found = (OnnxSession(graph.SerializeToString()).logits(batch) for graph in (plain, careful))
    assert np.abs(found - expected).max() < 0.02 * np.abs(expected).max()
