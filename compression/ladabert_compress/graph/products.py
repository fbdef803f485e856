"""Matrix products and linear layers of a graph, in fp32 or in int8 with fixed scales."""

from __future__ import annotations

from collections.abc import Set

import numpy as np
import numpy.typing as npt
from onnx import TensorProto
from torch import Tensor, nn

from ladabert_compress.graph.builder import MICROSOFT, GraphBuilder
from ladabert_compress.graph.int8_scales import Ranges, quantise_columns
from ladabert_compress.student.factors import FactorisedLinear

Array = npt.NDArray[np.float32]


class Products:
    """Adds matrix products to a graph.

    Args:
        graph: where to add them.
        ranges: of the activations, for int8; ``None`` is fp32 throughout.
        in_fp32: inputs, by their range's name, whose products stay in fp32 all the same.
        weight_bits: of int8 weights.
    """

    def __init__(self, graph: GraphBuilder, ranges: Ranges | None, in_fp32: Set[str], weight_bits: int = 8) -> None:
        self.graph = graph
        self.in_int8: dict[str, int] = {}  # by range, the weights of the products that are int8
        self._ranges = ranges
        self._in_fp32 = in_fp32
        self._weight_bits = weight_bits
        self._quantised: dict[tuple[str, str], tuple[str, str, str]] = {}

    def product(self, inputs: str, name: str, weight: Array, range_name: str, bias: Array | None = None) -> str:
        """Inputs (…, k) times a weight (k, n), plus a bias (n,)."""
        graph = self.graph
        bias_name = "" if bias is None else graph.weight(f"{name}.bias", bias)
        if self._ranges is None or range_name in self._in_fp32:
            product = graph.node("MatMul", inputs, self.constant(name, weight))
            return product if bias is None else graph.node("Add", product, bias_name)
        self.in_int8[range_name] = self.in_int8.get(range_name, 0) + weight.size
        int8, scales = self.int8_weight(name, weight)
        quantised, scale, zero_point = self._quantise(inputs, range_name)
        return graph.node(
            "MatMulIntegerToFloat", quantised, int8, scale, scales, zero_point, "", bias_name, domain=MICROSOFT
        )

    def linear(self, inputs: str, module: nn.Module, name: str, activation: str = "") -> str:
        """A linear layer of one matrix or two factors, (…, k) → (…, n), and the activation ``Gelu`` after it."""
        if isinstance(module, FactorisedLinear):
            inputs = self.product(inputs, f"{name}.right", array(module.right), name)
            weight, last, range_name = array(module.left).T, f"{name}.left", f"{name}.rank"
        else:
            weight, last, range_name = array(module.get_parameter("weight")).T, f"{name}.weight", name
        if not activation:
            return self.product(inputs, last, weight, range_name, bias_of(module))
        if self.is_int8(range_name):
            output = self.product(inputs, last, weight, range_name, bias_of(module))
            return self.graph.node(activation, output, domain=MICROSOFT)
        bias = self.graph.weight(f"{last}.bias", bias_of(module))
        return self.graph.node(
            f"Bias{activation}", self.product(inputs, last, weight, range_name), bias, domain=MICROSOFT
        )

    def is_int8(self, range_name: str) -> bool:
        """Whether products of these inputs are int8."""
        return self._ranges is not None and range_name not in self._in_fp32

    def int8_weight(self, name: str, weight: Array) -> tuple[str, str]:
        """A weight (k, n) as int8 (k, n) and its scales (n,)."""
        quantised, scales = quantise_columns(weight, self._weight_bits)
        return self.graph.weight(f"{name}.int8", quantised), self.graph.weight(f"{name}.scales", scales)

    def constant(self, name: str, values: Array) -> str:
        """Numbers in fp32; an int8 graph stores them in fp16, and constant folding makes them fp32 again."""
        if self._ranges is None:
            return self.graph.weight(name, values)
        stored = self.graph.weight(f"{name}.fp16", values.astype(np.float16))
        return self.graph.node("Cast", stored, to=TensorProto.FLOAT)

    def _quantise(self, inputs: str, range_name: str) -> tuple[str, str, str]:
        """The tensor as uint8 with its scale and zero point; quantised once, however many read it."""
        assert self._ranges is not None
        scale_value, zero_value = self._ranges[range_name].scale_and_zero_point()
        key = inputs, repr((scale_value, zero_value))
        if key not in self._quantised:
            graph = self.graph
            scale = graph.weight(f"{range_name}.input_scale", np.array(scale_value))
            zero_point = graph.weight(f"{range_name}.input_zero_point", np.array(zero_value))
            self._quantised[key] = graph.node("QuantizeLinear", inputs, scale, zero_point), scale, zero_point
        return self._quantised[key]


def array(tensor: Tensor) -> Array:
    """The tensor's numbers as float32."""
    values: Array = tensor.detach().float().cpu().numpy()
    return values


def bias_of(module: nn.Module) -> Array:
    """The bias (n,) of a linear layer."""
    return array(module.get_parameter("bias"))
