"""ONNX Runtime behind the backend protocol; the only module that imports it."""

import functools
import logging
import os
import threading
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read when the library is loaded

import onnxruntime as ort

from ladabert_serve.backends.backend import FloatArray, IntArray, check_names
from ladabert_serve.errors import ArtefactError, InferenceError, ProviderError
from ladabert_serve.settings import Provider

logger = logging.getLogger(__name__)

DEVICE_ID = 0  # of the GPU; CUDA_VISIBLE_DEVICES chooses another
# How long threads that share a run look out for its next step before they sleep; longer burns more CPU after each run.
SPIN_US = 200


class GraphPort(NamedTuple):
    """An input or an output of a graph; an axis that takes any size is a name or None."""

    name: str
    type: str  # as in `tensor(int64)`
    shape: tuple[int | str | None, ...]


class OnnxBackend:
    """One session with one thread per run, shared by every runner: `run` holds no lock and frees the GIL.

    With `device` the inputs are put there, and the output made there, by I/O binding: on a GPU the three arrays go
    over once, in order, and only the logits come back. `multi_thread_session` runs a single text that arrives while
    nothing else runs.
    """

    def __init__(
        self,
        session: ort.InferenceSession,
        inputs: Sequence[str],
        output: str,
        device: str | None = None,
        multi_thread_session: ort.InferenceSession | None = None,
    ) -> None:
        self._session = session
        self._inputs = tuple(inputs)
        self._output = output
        self._device = device
        self._multi_thread_session = multi_thread_session
        self._lock = threading.Lock()
        self._runs = 0  # that go on; not counted without a multi-thread session

    @property
    def provider(self) -> str:
        return "cuda" if self._session.get_providers()[0] == "CUDAExecutionProvider" else "cpu"

    @property
    def copies(self) -> int:
        """How many sessions hold the graph."""
        return 1 if self._multi_thread_session is None else 2

    def run(self, input_ids: IntArray, attention_mask: IntArray, token_type_ids: IntArray) -> FloatArray:
        arrays = {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": token_type_ids}
        feeds = {name: arrays[name] for name in self._inputs}
        try:
            if self._multi_thread_session is not None:
                logits = self._run_shared(self._multi_thread_session, feeds, texts=len(input_ids))
            elif self._device is None:
                logits = self._session.run([self._output], feeds)[0]
            else:
                logits = self._run_bound(feeds)
            return np.asarray(logits, dtype=np.float32)
        except Exception as error:  # its exceptions share no base class
            raise InferenceError(f"ONNX Runtime: {error}") from error

    def _run_shared(
        self, multi_thread_session: ort.InferenceSession, feeds: Mapping[str, IntArray], texts: int
    ) -> FloatArray:
        with self._lock:
            is_alone = texts == 1 and self._runs == 0
            self._runs += 1
        try:
            logits: FloatArray = (multi_thread_session if is_alone else self._session).run([self._output], feeds)[0]
        finally:
            with self._lock:
                self._runs -= 1
        return logits

    def _run_bound(self, feeds: Mapping[str, IntArray]) -> FloatArray:
        binding = self._session.io_binding()  # of this run alone: runners share the session
        for name, array in feeds.items():
            binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(array, self._device, DEVICE_ID))
        binding.bind_output(self._output, self._device, DEVICE_ID)
        self._session.run_with_iobinding(binding)
        (logits,) = binding.copy_outputs_to_cpu()
        return np.asarray(logits, dtype=np.float32)


def load_onnx_backend(
    graph: bytes, inputs: Sequence[str], output: str, provider: Provider, lone_text_threads: int = 1
) -> OnnxBackend:
    """Load a graph, on the CPU a second time if a lone text gets more than one thread.

    Raises ArtefactError for a bad one and ProviderError for a provider that is not there.
    """
    session = None
    if provider in ("auto", "cuda"):
        session, reason = _cuda_session(graph)
        if session is None and provider == "cuda":
            raise ProviderError(f"provider cuda was asked for: {reason}")
        if session is None:
            _log_cpu_fallback(reason)
    if session is None:
        session = _session(graph, ["CPUExecutionProvider"])
    found_inputs, found_outputs = session.get_inputs(), session.get_outputs()
    check_names([each.name for each in found_inputs], [each.name for each in found_outputs], inputs, output)
    if session.get_providers()[0] == "CUDAExecutionProvider":
        return OnnxBackend(session, inputs, output, device="cuda")
    multi_thread_session = (
        _session(graph, ["CPUExecutionProvider"], lone_text_threads) if lone_text_threads > 1 else None
    )
    return OnnxBackend(session, inputs, output, multi_thread_session=multi_thread_session)


def graph_ports(graph: bytes) -> tuple[list[GraphPort], list[GraphPort]]:
    """Return the inputs and the outputs of a graph; raises ArtefactError for one that cannot be loaded."""
    session = _session(graph, ["CPUExecutionProvider"])
    inputs, outputs = (
        [GraphPort(each.name, each.type, tuple(each.shape)) for each in ports]
        for ports in (session.get_inputs(), session.get_outputs())
    )
    return inputs, outputs


@functools.cache
def _log_cpu_fallback(reason: str) -> None:
    """Log it once, not for every model."""
    logger.info("computing on the CPU: %s", reason)


def _cuda_session(graph: bytes) -> tuple[ort.InferenceSession | None, str]:
    """Return a session on CUDA, or None and the reason why there is none."""
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        return None, "this build of ONNX Runtime has no CUDA provider (install onnxruntime-gpu)"
    preload = getattr(ort, "preload_dlls", None)
    if preload is not None:
        preload()
    session = _session(graph, ["CUDAExecutionProvider", "CPUExecutionProvider"])
    if "CUDAExecutionProvider" not in session.get_providers():
        return None, "ONNX Runtime could not start CUDA (no GPU, or its libraries are missing)"
    return session, ""


def session_options(threads: int = 1) -> ort.SessionOptions:
    """Return the options under which every graph is loaded."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # As the export verified the graph. An x86 CPU without VNNI saturates products of uint8 and int8 in 16 bits; the
    # option has those, and on such CPUs only, computed in uint8, by one of the extended optimisations.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.add_session_config_entry("session.x64quantprecision", "1")
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0" if threads == 1 else "1")
    options.add_session_config_entry("session.intra_op.spin_duration_us", str(SPIN_US))
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.add_session_config_entry("session.load_model_format", "ONNX")  # the one that is checked before
    options.log_severity_level = 4  # fatal; what fails is raised and logged by us
    return options


def _session(graph: bytes, providers: list[str], threads: int = 1) -> ort.InferenceSession:
    # A session keeps the bytes that it is given for as long as it lives, of a file only the path; so they become one
    # in memory, which nobody else can change between the check of its sha256 and the load.
    with os.fdopen(os.memfd_create("graph"), "wb") as file:
        file.write(graph)
        file.flush()
        path = f"/proc/self/fd/{file.fileno()}"
        may_fall_back = len(providers) > 1  # on the same provider it would print to stdout and fail again
        try:
            session = ort.InferenceSession(
                path, session_options(threads), providers=providers, enable_fallback=int(may_fall_back)
            )
        except Exception as error:  # its exceptions share no base class
            raise ArtefactError(f"ONNX Runtime cannot load the graph: {error}") from error
    session.disable_fallback()
    return session
