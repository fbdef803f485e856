import numpy as np
import onnx
import pytest

from ladabert_compress.graph.encoder import build_bert_graph
from ladabert_compress.graph.int8_scales import measure_activation_ranges, quantise_columns, quantise_rows
from ladabert_compress.graph.plan import GraphPlan
from ladabert_compress.training.run import CompressionResult


@pytest.mark.parametrize("bits", [7, 8])
def test_quantised_weights_are_within_half_a_step_and_zeros_stay_zero(bits: int) -> None:
    weight = np.random.default_rng(0).standard_normal((30, 7)).astype(np.float32)
    weight[:, 3] = 0
    quantised, scales = quantise_columns(weight, bits)
    assert np.abs(quantised * scales - weight).max() <= scales.max() / 2 + 1e-6
    assert not quantised[:, 3].any()
    rows, row_scales = quantise_rows(weight)
    assert np.abs((rows.astype(np.float32) - 128) * row_scales - weight).max() <= row_scales.max() / 2 + 1e-6


LARGEST_IN_16_BITS = 2**15 - 1


@pytest.mark.parametrize(("bits", "fits"), [(7, True), (8, False)])
def test_two_products_with_weights_of_7_bits_fit_16_bits(bits: int, fits: bool, result: CompressionResult) -> None:
    """x86 processors without VNNI add two products of an activation (0 to 255) and a weight in 16 bits."""
    model = result.student.model
    ranges = measure_activation_ranges(model, [result.train_data.batch(range(8))])
    graph = build_bert_graph(model, "single", ranges, GraphPlan(weight_bits=bits)).graph
    values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    products = [node for node in graph.node if node.op_type == "MatMulIntegerToFloat"]
    largest = {int(np.abs(values[node.input[1]].astype(int)).max()) for node in products}
    assert len(products) > 10
    assert largest == {2 ** (bits - 1) - 1}
    assert (2 * 255 * max(largest) <= LARGEST_IN_16_BITS) == fits


def test_a_tables_row_scales_are_stored_in_fp16_as_they_are() -> None:
    table = np.random.default_rng(0).standard_normal((50, 7)).astype(np.float32) * np.logspace(-8, 2, 50)[:, None]
    rows, scales = quantise_rows(table.astype(np.float32))
    assert (scales.astype(np.float16).astype(np.float32) == scales).all()
    assert (np.abs((rows.astype(np.float32) - 128) * scales - table) <= scales / 2 + 1e-6).all()


def test_calibration_does_not_look_at_padding(result: CompressionResult) -> None:
    alone, with_padding = (
        measure_activation_ranges(result.student.model, [batch])
        for batch in (result.train_data.batch([0]), result.train_data.batch([0], pad_to=30))
    )
    for name, expected in alone.items():
        assert with_padding[name].low == pytest.approx(expected.low, abs=1e-4)
        assert with_padding[name].high == pytest.approx(expected.high, abs=1e-4)
