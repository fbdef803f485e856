import numpy as np
import pytest

from ladabert_compress.graph.int8_scales import measure_activation_ranges, quantise_columns, quantise_rows
from ladabert_compress.training.run import CompressionResult


def test_quantised_weights_are_within_half_a_step_and_zeros_stay_zero() -> None:
    weight = np.random.default_rng(0).standard_normal((30, 7)).astype(np.float32)
    weight[:, 3] = 0
    quantised, scales = quantise_columns(weight)
    assert np.abs(quantised * scales - weight).max() <= scales.max() / 2 + 1e-6
    assert not quantised[:, 3].any()
    rows, row_scales = quantise_rows(weight)
    assert np.abs((rows.astype(np.float32) - 128) * row_scales - weight).max() <= row_scales.max() / 2 + 1e-6


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
