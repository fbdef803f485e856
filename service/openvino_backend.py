"""OpenVINO behind the backend protocol; the only module that imports it, which needs the extra `openvino`.

Only `openvino`'s core is loaded. Its package `openvino_telemetry` belongs to the conversion tools, which nothing here
calls, and sends nothing without consent.
"""

import threading
from collections.abc import Sequence

import numpy as np
import openvino

from service.backend import FloatArray, IntArray
from service.cores import available_cores
from service.errors import ArtefactError, InferenceError, ProviderError

# Kernels are made anew for every number of tokens, in 10 to 30 ms and 3 to 15 MB: padding keeps that number small.
TOKENS_MULTIPLE = 8


class OpenVinoBackend:
    """One compiled model with as many one-thread streams as there are cores; each runner has a request of its own."""

    def __init__(self, model: openvino.CompiledModel, inputs: Sequence[str], output: str, max_length: int) -> None:
        self._max_length = max_length
        self._model = model
        self._inputs = tuple(inputs)
        self._output = output
        self._of_thread = threading.local()

    @property
    def provider(self) -> str:
        """Where it computes."""
        return "openvino"

    def run(self, input_ids: IntArray, attention_mask: IntArray, token_type_ids: IntArray) -> FloatArray:
        """Return logits (B, labels) for three arrays (B, T); raises InferenceError."""
        arrays = {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": token_type_ids}
        try:
            request = self._request()
            for name in self._inputs:
                request.set_tensor(name, openvino.Tensor(_pad(arrays[name], self._max_length), shared_memory=False))
            request.infer()
            return np.array(request.get_tensor(self._output).data, dtype=np.float32)
        except Exception as error:  # its exceptions share no base class
            raise InferenceError(f"OpenVINO: {_one_line(error)}") from error

    def warm_up(self) -> None:
        """Make the kernels of one text of every padded length; raises InferenceError."""
        for length in range(TOKENS_MULTIPLE, self._max_length + TOKENS_MULTIPLE, TOKENS_MULTIPLE):
            ones = np.ones((1, min(length, self._max_length)), dtype=np.int64)
            self.run(ones, ones, np.zeros_like(ones))

    def _request(self) -> openvino.InferRequest:
        request = getattr(self._of_thread, "request", None)
        if request is None:
            request = self._of_thread.request = self._model.create_infer_request()
        return request


def load_openvino_backend(graph: bytes, inputs: Sequence[str], output: str, max_length: int) -> OpenVinoBackend:
    """Load a graph for texts of at most `max_length` tokens.

    Raises ArtefactError for a graph that OpenVINO cannot read, and ProviderError where it finds nothing to run on.
    """
    core = openvino.Core()
    if "CPU" not in core.available_devices:
        raise ProviderError("provider openvino was asked for: OpenVINO finds no CPU that it can use")
    cores = available_cores()
    options = {
        "INFERENCE_NUM_THREADS": cores,
        "NUM_STREAMS": cores,  # each of one thread, as a runner is
        "ENABLE_CPU_PINNING": False,  # the cores belong to the cgroup, not to this process alone
    }
    try:
        model = core.compile_model(core.read_model(graph), "CPU", options)
    except Exception as error:  # its exceptions share no base class
        raise ArtefactError(f"OpenVINO cannot load the graph: {_one_line(error)}") from error
    found_inputs = sorted(port.get_any_name() for port in model.inputs)
    if found_inputs != sorted(inputs):
        raise ArtefactError(f"the graph's inputs are {found_inputs}, the manifest says {sorted(inputs)}")
    found_outputs = [port.get_any_name() for port in model.outputs]
    if output not in found_outputs:
        raise ArtefactError(f"the graph's outputs are {found_outputs}, the manifest says {output!r}")
    return OpenVinoBackend(model, inputs, output, max_length)


def _pad(array: IntArray, max_length: int) -> IntArray:
    """Return (B, T) with T rounded up, if the model is as long; a mask of 0 keeps what is added out of every answer."""
    length = array.shape[1]
    rounded = min(length + -length % TOKENS_MULTIPLE, max(length, max_length))
    return np.pad(array, ((0, 0), (0, rounded - length)))


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 500 else text[:500] + "…"
