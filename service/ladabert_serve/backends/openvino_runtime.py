"""OpenVINO behind the backend protocol; the only module that imports it, which needs the extra `openvino`.

Only `openvino`'s core is loaded. Its package `openvino_telemetry` belongs to the conversion tools, which nothing here
calls, and sends nothing without consent.
"""

import threading
from collections.abc import Mapping, Sequence

import numpy as np
import openvino

from ladabert_serve.backends.backend import FloatArray, IntArray, check_names
from ladabert_serve.backends.openvino_graph import fold_positions
from ladabert_serve.cores import available_cores
from ladabert_serve.errors import ArtefactError, InferenceError, ProviderError

# Kernels are made anew for every number of tokens, in 10 to 30 ms and 3 to 15 MB: padding keeps that number small.
TOKENS_MULTIPLE = 8
ANY_SHAPE = 0  # the key of the model that takes every shape, among those of one number of tokens


class OpenVinoBackend:
    """One model for every shape, and one for single texts of each short length; each runner has requests of its own.

    A model that takes every shape has to fit its kernels to another one whenever the shape changes, which takes longer
    than a short text's run. Models of one shape have nothing to fit.
    """

    def __init__(
        self, models: Mapping[int, openvino.CompiledModel], inputs: Sequence[str], output: str, max_length: int
    ) -> None:
        self._max_length = max_length
        self._models = models  # by the tokens of a single text, or ANY_SHAPE
        self.fixed_lengths = frozenset(models) - {ANY_SHAPE}
        self._inputs = tuple(inputs)
        self._output = output
        self._of_thread = threading.local()

    @property
    def provider(self) -> str:
        return "openvino"

    def run(self, input_ids: IntArray, attention_mask: IntArray, token_type_ids: IntArray) -> FloatArray:
        arrays = {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": token_type_ids}
        batch, tokens = input_ids.shape
        padded = self._padded(tokens)
        try:
            request = self._request(padded if batch == 1 and padded in self.fixed_lengths else ANY_SHAPE)
            for name in self._inputs:
                request.fill(name, arrays[name], padded)
            return request.run()
        except Exception as error:  # its exceptions share no base class
            raise InferenceError(f"OpenVINO: {error}") from error

    def warm_up(self) -> None:
        """Make the kernels of one text of every padded length; raises InferenceError."""
        for length in range(TOKENS_MULTIPLE, self._max_length + TOKENS_MULTIPLE, TOKENS_MULTIPLE):
            ones = np.ones((1, min(length, self._max_length)), dtype=np.int64)
            self.run(ones, ones, np.zeros_like(ones))

    def _padded(self, tokens: int) -> int:
        """Return the tokens rounded up, if the model is as long; a mask of 0 keeps the padding out of every answer."""
        return min(tokens + -tokens % TOKENS_MULTIPLE, max(tokens, self._max_length))

    def _request(self, key: int) -> "_Request":
        requests: dict[int, _Request] | None = getattr(self._of_thread, "requests", None)
        if requests is None:
            requests = self._of_thread.requests = {}
        if key not in requests:
            requests[key] = _Request(self._models[key], self._inputs, self._output)
        return requests[key]


class _Request:
    """One thread's request of one model; arrays are written into its own tensors, as handing over others costs more."""

    def __init__(self, model: openvino.CompiledModel, inputs: Sequence[str], output: str) -> None:
        self._request = model.create_infer_request()
        self._tensors = {name: self._request.get_tensor(name) for name in inputs}
        self._output = output

    def fill(self, name: str, array: IntArray, padded: int) -> None:
        """Write an array (B, T) into an input (B, padded), with zeros after it."""
        batch, tokens = array.shape
        tensor = self._tensors[name]
        if list(tensor.shape) != [batch, padded]:
            tensor.shape = (batch, padded)
        data = tensor.data
        data[:, :tokens] = array
        data[:, tokens:] = 0

    def run(self) -> FloatArray:
        """Return the logits (B, labels)."""
        self._request.infer()
        return np.array(self._request.get_tensor(self._output).data, dtype=np.float32)


def load_openvino_backend(
    graph: bytes, inputs: Sequence[str], output: str, max_length: int, fixed_tokens: int
) -> OpenVinoBackend:
    """Load a graph for texts of at most `max_length` tokens; single ones up to `fixed_tokens` get models of their own.

    Raises ArtefactError for a graph that OpenVINO cannot read, and ProviderError where it finds nothing to run on.
    """
    core = openvino.Core()
    if "CPU" not in core.available_devices:
        raise ProviderError("provider openvino was asked for: OpenVINO finds no CPU that it can use")
    try:
        model = core.read_model(graph)
        found_inputs, found_outputs = (
            [port.get_any_name() for port in ports] for ports in (model.inputs, model.outputs)
        )
        check_names(found_inputs, found_outputs, inputs, output)
        return OpenVinoBackend(_compile_all(core, model, min(fixed_tokens, max_length)), inputs, output, max_length)
    except ArtefactError:
        raise
    except Exception as error:  # its exceptions share no base class
        raise ArtefactError(f"OpenVINO cannot load the graph: {error}") from error


def _compile_all(core: openvino.Core, model: openvino.Model, fixed_tokens: int) -> dict[int, openvino.CompiledModel]:
    if fixed_tokens:
        fold_positions(model, in_bf16=core.get_property("CPU", "INFERENCE_PRECISION_HINT") == openvino.Type.bf16)
    models = {ANY_SHAPE: _compile(core, model)}
    for tokens in range(TOKENS_MULTIPLE, fixed_tokens + 1, TOKENS_MULTIPLE):
        fixed = model.clone()
        fixed.reshape({port: [1, tokens] for port in fixed.inputs})
        models[tokens] = _compile(core, fixed)
    return models


def _compile(core: openvino.Core, model: openvino.Model) -> openvino.CompiledModel:
    cores = available_cores()
    options = {
        "INFERENCE_NUM_THREADS": cores,
        "NUM_STREAMS": cores,  # each of one thread, as a runner is
        "ENABLE_CPU_PINNING": False,  # the cores belong to the cgroup, not to this process alone
    }
    return core.compile_model(model, "CPU", options)
