"""What OpenVINO needs changed in our graphs before it compiles them."""

import numpy as np
import openvino
from openvino import opset13 as operators

from ladabert_serve.backends.backend import FloatArray


def fold_positions(model: openvino.Model, *, in_bf16: bool) -> None:
    """Put one table, ready to be added, in the place of the position rows and the constants that they meet, in place.

    With `in_bf16` its numbers are rounded as OpenVINO would. It does so only in graphs for every shape and keeps the
    constants of graphs for one shape in fp32, and then the two answer differently.
    """
    for rows in model.get_ops():
        if rows.get_type_name() != "Slice" or not _is_table(rows.input_value(0).get_node()):
            continue
        table, last = rows.input_value(0).get_node().data, rows
        while (folded := _folded_into_consumer(table, last)) is not None:
            table, last = folded
        data = operators.constant(_rounded_to_bf16(table) if in_bf16 else table)
        sliced = operators.slice(data, *(rows.input_value(index) for index in range(1, rows.get_input_size())))
        last.output(0).replace(sliced.output(0))


def _is_table(node: openvino.Node) -> bool:
    return bool(node.get_type_name() == "Constant" and node.get_element_type() == openvino.Type.f32)


def _folded_into_consumer(table: FloatArray, node: openvino.Node) -> tuple[FloatArray, openvino.Node] | None:
    """Return the table after the one operation that reads it and a constant, and that operation; or None."""
    targets = list(node.output(0).get_target_inputs())
    if len(targets) != 1:
        return None
    consumer = targets[0].get_node()
    other = consumer.input_value(1 - targets[0].get_index()).get_node() if consumer.get_input_size() == 2 else node
    if not _is_table(other):
        return None
    if consumer.get_type_name() == "MatMul" and targets[0].get_index() == 0:
        return table @ other.data, consumer
    if consumer.get_type_name() == "Add":
        return table + other.data, consumer
    return None


def _rounded_to_bf16(values: FloatArray) -> FloatArray:
    """Return the nearest numbers of eight significant bits, ties to even."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    rounded: FloatArray = ((bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)).view(np.float32)
    return rounded
