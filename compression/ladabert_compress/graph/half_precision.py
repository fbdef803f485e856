"""The fp16 graph for CUDA, made of the fp32 graph: half the bytes, tensor cores, and the GPU's fused kernels.

Attention has to be ``MultiHeadAttention``, one kernel on CUDA in fp16; attention written for a CPU is refused. A sum
and the normalisation after it become ``SkipLayerNormalization``, one kernel as well.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ladabert_compress.errors import ExportError
from ladabert_compress.graph.builder import MICROSOFT

LARGEST_HALF = 65504.0
SCORE_TOLERANCE = 0.02
PARITY_SHAPES = ((1, 3), (1, 17), (2, 64), (7, 33), (32, 16))


def half_precision(graph: onnx.ModelProto) -> onnx.ModelProto:
    """The graph in fp16 with fused normalisation; ids and mask go in as before, logits come out as float32.

    Raises:
        ExportError: a weight is too large for fp16, or attention is written for a CPU.
    """
    if any(node.op_type == "Softmax" for node in graph.graph.node):
        raise ExportError(
            "fp16: the fp32 graph's attention is written for a CPU; run compress once more with --resume --target cuda"
        )
    half = onnx.ModelProto()
    half.CopyFrom(graph)
    for tensor in half.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            weight = numpy_helper.to_array(tensor)
            if weight.size and not np.abs(weight).max() <= LARGEST_HALF:
                raise ExportError(f"fp16: {tensor.name} has a weight over {LARGEST_HALF:g}; keep the fp32 graph")
            tensor.CopyFrom(numpy_helper.from_array(weight.astype(np.float16), tensor.name))
    _fuse_normalisation(half.graph)
    (output,) = half.graph.output
    for node in half.graph.node:
        node.output[:] = [f"{name}_fp16" if name == output.name else name for name in node.output]
        if node.op_type == "Cast" and node.attribute[0].i == TensorProto.FLOAT:
            node.attribute[0].i = TensorProto.FLOAT16
    half.graph.node.append(helper.make_node("Cast", [f"{output.name}_fp16"], [output.name], to=TensorProto.FLOAT))
    onnx.checker.check_model(half)
    return half


def _fuse_normalisation(graph: onnx.GraphProto) -> None:
    """``Add`` of two activations, then ``LayerNormalization`` → ``SkipLayerNormalization``."""
    weights = {tensor.name for tensor in graph.initializer}
    # The positions, one for all texts.
    broadcast = {node.output[0] for node in graph.node if node.op_type == "Slice" and node.input[0] in weights}
    readers = Counter(name for node in graph.node for name in node.input)
    sums = {
        node.output[0]: node
        for node in graph.node
        if node.op_type == "Add" and readers[node.output[0]] == 1 and not (weights | broadcast) & set(node.input)
    }
    fused: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.op_type == "LayerNormalization" and node.input[0] in sums:
            addition = sums[node.input[0]]
            fused.remove(addition)
            epsilon = next(attribute.f for attribute in node.attribute if attribute.name == "epsilon")
            inputs = [*addition.input, *node.input[1:]]
            node = helper.make_node(
                "SkipLayerNormalization", inputs, list(node.output), name=node.name, domain=MICROSOFT, epsilon=epsilon
            )
        fused.append(node)
    del graph.node[:]
    graph.node.extend(fused)
