"""ONNX Runtime, as the service runs it: one thread, and no telemetry."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read when onnxruntime is imported

import onnxruntime

from ladabert_compress.data.batches import Batch, EncodedTexts, evaluation_batches
from ladabert_compress.graph.builder import LOGITS
from ladabert_compress.measure.predictions import Logits


class OnnxSession:
    """Runs an exported graph on one CPU thread."""

    def __init__(self, model: Path | bytes, *, profile: Path | None = None, fuse: bool = False) -> None:
        """Loads a graph.

        Args:
            model: file or content.
            profile: prefix of a file to write ONNX Runtime's profile to.
            fuse: with all of ONNX Runtime's own optimisations, for graphs of other tools.
        """
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        # As the service loads it: what is verified here is what runs there.
        level = onnxruntime.GraphOptimizationLevel
        options.graph_optimization_level = level.ORT_ENABLE_ALL if fuse else level.ORT_ENABLE_EXTENDED
        options.add_session_config_entry("session.x64quantprecision", "1")
        options.log_severity_level = 3
        if profile is not None:
            options.enable_profiling = True
            options.profile_file_prefix = str(profile)
        self._session = onnxruntime.InferenceSession(
            model if isinstance(model, bytes) else str(model), options, providers=["CPUExecutionProvider"]
        )
        self.inputs = [entry.name for entry in self._session.get_inputs()]

    def logits(self, batch: Batch) -> Logits:
        """Logits (B, classes)."""
        feeds = {name: getattr(batch, name).numpy() for name in self.inputs}
        outputs: Logits = self._session.run([LOGITS], feeds)[0]
        return outputs

    def end_profile(self) -> Path:
        """Closes the profile and says where it is."""
        return Path(self._session.end_profiling())


def onnx_logits(session: OnnxSession, data: EncodedTexts, batch_size: int = 32) -> Logits:
    """Logits (N, classes) in the rows' order, from length-sorted batches."""
    logits: dict[int, Logits] = {}
    for rows, batch in evaluation_batches(data, batch_size):
        logits.update(zip(rows, session.logits(batch), strict=True))
    return np.stack([logits[row] for row in range(len(data))])
