"""Collects the nodes and weights of an ONNX graph."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 21
MICROSOFT = "com.microsoft"
LOGITS = "logits"  # the name of a graph's output


class GraphBuilder:
    """Adds nodes in order; every method returns the name of the tensor that it makes."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._weights: dict[str, onnx.TensorProto] = {}
        self._shared: dict[str, str] = {}
        self._counter = 0

    def node(self, operator: str, *inputs: str, domain: str = "", output: str = "", **attributes: Any) -> str:
        """Adds one node with a single output."""
        self._counter += 1
        output = output or f"{operator}_{self._counter}"
        self._nodes.append(
            helper.make_node(operator, list(inputs), [output], name=f"n{self._counter}", domain=domain, **attributes)
        )
        return output

    def nodes(self, operator: str, *inputs: str, outputs: int, **attributes: Any) -> list[str]:
        """Adds one node with several outputs."""
        self._counter += 1
        names = [f"{operator}_{self._counter}_{index}" for index in range(outputs)]
        self._nodes.append(helper.make_node(operator, list(inputs), names, name=f"n{self._counter}", **attributes))
        return names

    def shared_node(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Adds one node with a single output, or finds the one that computes the same."""
        key = repr((operator, inputs, sorted(attributes.items())))
        if key not in self._shared:
            self._shared[key] = self.node(operator, *inputs, **attributes)
        return self._shared[key]

    def weight(self, name: str, value: np.ndarray) -> str:
        """Adds a constant; the same name twice is the same constant."""
        if name not in self._weights:
            self._weights[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
        return name

    def integers(self, *values: int) -> str:
        """A one-dimensional int64 constant."""
        return self.weight("int_" + "_".join(map(str, values)), np.array(values, dtype=np.int64))

    def scalar(self, value: float) -> str:
        """A float32 scalar."""
        return self.weight(f"scalar_{value!r}", np.array(value, dtype=np.float32))

    def model(self, inputs: tuple[str, ...], output: str, classes: int) -> onnx.ModelProto:
        """The checked model: inputs int64 (batch, sequence), output float32 (batch, classes)."""
        graph = helper.make_graph(
            self._nodes,
            "ladabert",
            [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "sequence"]) for name in inputs],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["batch", classes])],
            list(self._weights.values()),
        )
        model = helper.make_model(
            graph,
            producer_name="ladabert",
            opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT, 1)],
            ir_version=10,
        )
        onnx.checker.check_model(model)
        return model
