"""The teacher through ONNX Runtime's own tools: fused in fp32, quantised dynamically, and quantised statically."""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from ladabert_compress.data.batches import Batch
from ladabert_compress.graph.encoder import graph_inputs
from ladabert_compress.report.standard_tools import standard_graph
from ladabert_compress.teacher.folder import Teacher


class Batches(CalibrationDataReader):  # type: ignore[misc]  # ONNX Runtime has no types
    """Batches of rows, as the static quantiser reads them."""

    def __init__(self, batches: Sequence[Batch], inputs: Sequence[str]) -> None:
        self._left: Iterator[dict[str, Any]] = (
            {name: getattr(batch, name).numpy() for name in inputs} for batch in batches
        )

    def get_next(self) -> dict[str, np.ndarray[Any, Any]] | None:
        """Return the next batch, or ``None`` after the last."""
        return next(self._left, None)


def tool_graphs(teacher: Teacher, task: str, batches: Sequence[Batch]) -> dict[str, onnx.ModelProto]:
    """Return the graphs that the tools make, by what they are called; ``batches`` show the ranges of activations."""
    fused = standard_graph(teacher.model, task, int8=False)
    return {
        "teacher, fp32, usual fusions": fused,
        "teacher, int8, `quantize_dynamic`": standard_graph(teacher.model, task, int8=True),
        "teacher, int8, `quantize_static`": statically_quantised(fused, task, batches),
    }


def statically_quantised(fused: onnx.ModelProto, task: str, batches: Sequence[Batch]) -> onnx.ModelProto:
    """Return the fused graph with its matrix products in int8, one scale a tensor of activations."""
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder) / "fused.onnx", Path(folder) / "int8.onnx"
        onnx.save(fused, before)
        quantize_static(
            before,
            after,
            Batches(batches, graph_inputs(task)),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            # Shapes cannot be inferred through the fused operators; without a type the quantiser gives up.
            extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
        )
        return onnx.load(after)
