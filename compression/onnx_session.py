"""ONNX Runtime, as the service runs it: one thread, and no telemetry."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read when onnxruntime is imported

import onnxruntime

from compression.batches import Batch
from compression.bert_graph import LOGITS


class OnnxSession:
    """Runs an exported graph on one CPU thread."""

    def __init__(self, model: Path | bytes) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        # As the service loads it: the graph is final, and what is verified here is what runs there.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        self._session = onnxruntime.InferenceSession(
            model if isinstance(model, bytes) else str(model), options, providers=["CPUExecutionProvider"]
        )
        self._inputs = [entry.name for entry in self._session.get_inputs()]

    def logits(self, batch: Batch) -> npt.NDArray[np.float32]:
        """Logits (B, classes)."""
        feeds = {name: getattr(batch, name).numpy() for name in self._inputs}
        outputs: npt.NDArray[np.float32] = self._session.run([LOGITS], feeds)[0]
        return outputs
