"""The same model through the standard tools, for comparison: traced, fused, quantised dynamically.

``torch.onnx.export``, then ``onnxruntime.transformers.optimizer`` with the fusions that it makes of a BERT, then
``onnxruntime.quantization.quantize_dynamic``.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import torch
from transformers import BertForSequenceClassification

import ladabert_compress.graph.session  # noqa: F401 - it sets what ONNX Runtime reads when it is imported
from ladabert_compress.data.batches import Batch
from ladabert_compress.data.random_batches import random_batch
from ladabert_compress.graph.builder import LOGITS
from ladabert_compress.graph.encoder import graph_inputs
from ladabert_compress.measure.inference import classify

OPSET = 17


class TorchRunner:
    """PyTorch, eager, fp32, on one thread."""

    def __init__(self, model: BertForSequenceClassification) -> None:
        self._model = model.eval()

    @torch.inference_mode()
    def logits(self, batch: Batch) -> npt.NDArray[np.float32]:
        """Logits (B, classes)."""
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            logits: npt.NDArray[np.float32] = classify(self._model, batch).numpy()
        finally:
            torch.set_num_threads(threads)
        return logits


def standard_graph(model: BertForSequenceClassification, task: str, *, int8: bool) -> onnx.ModelProto:
    """The model traced and optimised, and quantised dynamically where ``int8`` says so."""
    from onnxruntime.quantization import quantize_dynamic
    from onnxruntime.transformers import optimizer

    level = logging.getLogger().level
    logging.getLogger().setLevel(logging.ERROR)  # the quantiser advises a step that fails on these graphs
    try:
        with tempfile.TemporaryDirectory() as name:
            traced, fused, quantised = (Path(name) / file for file in ("traced.onnx", "fused.onnx", "int8.onnx"))
            _trace(model, task, traced)
            optimised = optimizer.optimize_model(
                str(traced),
                model_type="bert",
                num_heads=model.config.num_attention_heads,
                hidden_size=model.config.hidden_size,
            )
            optimised.save_model_to_file(str(fused))
            if int8:
                # Shapes cannot be inferred through the fused operators; without a type the quantiser gives up.
                options = {"DefaultTensorType": onnx.TensorProto.FLOAT}
                quantize_dynamic(fused, quantised, extra_options=options)
            return onnx.load(quantised if int8 else fused)
    finally:
        logging.getLogger().setLevel(level)


def _trace(model: BertForSequenceClassification, task: str, file: Path) -> None:
    batch = random_batch(2, (2, 8))
    names = list(graph_inputs(task))
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer is the old one: the new one needs onnxscript
        torch.onnx.export(
            model.eval(),
            (),
            str(file),
            kwargs={name: getattr(batch, name) for name in names},
            input_names=names,
            output_names=[LOGITS],
            dynamic_axes={name: {0: "batch", 1: "sequence"} for name in names},
            opset_version=OPSET,
            dynamo=False,
        )
