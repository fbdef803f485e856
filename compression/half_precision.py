"""The fp16 graph for CUDA, made of the fp32 graph: half the bytes, tensor cores, and the GPU's fused kernels.

Attention has to be ``MultiHeadAttention`` in every layer, which in fp16 is fused attention on CUDA: a graph that was
written otherwise, because that is faster on a CPU, is refused. The sum before each normalisation joins it as
``SkipLayerNormalization``: slower than its parts on a CPU, one kernel less on a GPU.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from compression.artefact import (
    GRAPH_FILES,
    MANIFEST_FILE,
    artefact_version,
    read_graph,
    read_manifest,
    replace_artefact,
    validate_manifest,
)
from compression.batches import Batch
from compression.errors import ExportError
from compression.onnx_graph import MICROSOFT
from compression.onnx_session import OnnxSession
from compression.stored_file import store, stored_name

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


def check_half(fp32: onnx.ModelProto, fp16: onnx.ModelProto, max_length: int, problem_type: str) -> float:
    """The largest difference of a score between the two graphs on the CPU, over sizes, lengths and padding.

    Raises:
        ExportError: it is over 0.02.
    """
    sessions = [OnnxSession(graph.SerializeToString()) for graph in (fp32, fp16)]
    scores = torch.sigmoid if problem_type == "multi_label" else partial(torch.softmax, dim=1)
    worst = 0.0
    for seed, (rows, tokens) in enumerate(PARITY_SHAPES):
        generator = torch.Generator().manual_seed(seed)
        shape = (rows, min(tokens, max_length))
        ids = torch.randint(_vocabulary(fp32), shape, generator=generator)
        lengths = torch.randint(1, shape[1] + 1, (rows, 1), generator=generator)
        mask = (torch.arange(shape[1]) < lengths).long()
        batch = Batch(ids, mask, torch.zeros_like(ids), ids[:, 0])
        expected, found = (scores(torch.from_numpy(session.logits(batch))) for session in sessions)
        worst = max(worst, float((expected - found).abs().max()))
    if not worst <= SCORE_TOLERANCE:
        raise ExportError(f"fp16: a score differs from fp32's by {worst:.2g}, allowed {SCORE_TOLERANCE:g}")
    return worst


def add_fp16(folder: Path) -> dict[str, Any]:
    """Adds the fp16 graph to an artefact that has the fp32 one; the folder is replaced in one step.

    Returns:
        The manifest.

    Raises:
        ExportError: no fp32 graph, fp16 computes something else, or the disk is full; nothing is changed.
    """
    manifest = read_manifest(folder)
    folder = folder.resolve()
    if GRAPH_FILES["fp32"] not in manifest["files"]:
        raise ExportError(f"{folder}: has no {GRAPH_FILES['fp32']} to make fp16 of; compress with --precisions both")
    fp32 = onnx.load_from_string(read_graph(folder, manifest, GRAPH_FILES["fp32"]))
    try:
        fp16 = half_precision(fp32)
        check_half(fp32, fp16, manifest["max_length"], manifest["problem_type"])
    except ExportError as error:
        raise ExportError(f"{folder}: {error}") from error
    name, files = GRAPH_FILES["fp16"], manifest["files"]
    try:
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as temporary:
            copy = Path(temporary) / folder.name
            shutil.copytree(folder, copy)
            if name in files:
                (copy / stored_name(name, files[name])).unlink()
            files[name] = {"precision": "fp16", **store(copy, name, fp16.SerializeToString())}
            manifest["version"] = artefact_version(files)
            validate_manifest(manifest)
            (copy / MANIFEST_FILE).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
            replace_artefact(folder, copy)
    except OSError as error:
        raise ExportError(f"{folder}: cannot be written ({error.strerror}); nothing was changed") from error
    return manifest


def _vocabulary(model: onnx.ModelProto) -> int:
    """Rows of the word embeddings: the table that the input ids are looked up in."""
    (lookup,) = [node for node in model.graph.node if node.op_type == "Gather" and node.input[1] == "input_ids"]
    return next(int(tensor.dims[0]) for tensor in model.graph.initializer if tensor.name == lookup.input[0])
