"""Claims about running a graph: bound to a device or not, the answer is the same, from any thread."""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from ladabert_serve.backends.onnx_runtime import OnnxBackend, load_onnx_backend
from ladabert_serve.errors import InferenceError
from ladabert_serve.models.artefact import Artefact, read_artefact
from ladabert_serve.models.loading import load_inference
from tests.service.tiny_artefact import write_artefact


@pytest.fixture(params=["single", "pair"])
def artefact(request: pytest.FixtureRequest, models_folder: Path) -> Artefact:
    folder = write_artefact(models_folder, task=request.param, precisions=("int8", "fp32", "fp16"))
    return read_artefact(folder)


def sample(rows: int, tokens: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    ids = np.random.default_rng(rows).integers(1, 30, (rows, tokens))
    return ids, np.ones_like(ids), np.zeros_like(ids)


@pytest.fixture
def backends(artefact: Artefact) -> tuple[OnnxBackend, OnnxBackend]:
    """Return the same session plain, and bound to the CPU as it would be to a GPU."""
    session = ort.InferenceSession(artefact.read("model.onnx"), providers=["CPUExecutionProvider"])
    plain, bound = (OnnxBackend(session, artefact.inputs, artefact.output, device) for device in (None, "cpu"))
    return plain, bound


def test_a_bound_run_answers_as_a_plain_one(backends: tuple[OnnxBackend, OnnxBackend]) -> None:
    plain, bound = backends
    for rows, tokens in ((1, 3), (7, 16), (32, 5)):
        arrays = sample(rows, tokens)
        assert (bound.run(*arrays) == plain.run(*arrays)).all()


def test_bound_runs_do_not_disturb_each_other(backends: tuple[OnnxBackend, OnnxBackend]) -> None:
    plain, bound = backends
    batches = [sample(rows, 3 + rows % 5) for rows in range(1, 33)]
    expected = [plain.run(*arrays) for arrays in batches]
    with ThreadPoolExecutor(4) as pool:
        for found, wanted in zip(pool.map(lambda arrays: bound.run(*arrays), batches * 4), expected * 4, strict=True):
            assert (found == wanted).all()


def test_a_bound_run_that_fails_is_an_inference_error(backends: tuple[OnnxBackend, OnnxBackend]) -> None:
    ids, mask, types = sample(2, 4)
    for backend in backends:
        with pytest.raises(InferenceError, match="ONNX Runtime"):
            backend.run(ids + 10_000, mask, types)


class CountingSession:
    """A session that counts its runs, and waits within one for `go_on`."""

    def __init__(self, session: ort.InferenceSession) -> None:
        self.runs = 0
        self.go_on = threading.Event()
        self.entered = threading.Event()
        self.go_on.set()
        self._session = session

    def run(self, *arguments: Any) -> Any:
        self.runs += 1
        self.entered.set()
        assert self.go_on.wait(10)
        return self._session.run(*arguments)


@pytest.fixture
def shared(artefact: Artefact) -> tuple[OnnxBackend, CountingSession, CountingSession]:
    """Return a backend with a session for lone texts, its usual session and that one."""
    session = ort.InferenceSession(artefact.read("model.onnx"), providers=["CPUExecutionProvider"])
    usual, lone = CountingSession(session), CountingSession(session)
    return OnnxBackend(usual, artefact.inputs, artefact.output, multi_thread_session=lone), usual, lone


def test_a_text_alone_gets_the_session_of_several_threads(
    shared: tuple[OnnxBackend, CountingSession, CountingSession],
) -> None:
    backend, usual, lone = shared
    backend.run(*sample(1, 5))
    assert (usual.runs, lone.runs) == (0, 1)
    backend.run(*sample(2, 5))
    assert (usual.runs, lone.runs) == (1, 1)


def test_a_text_beside_another_run_gets_one_thread(
    shared: tuple[OnnxBackend, CountingSession, CountingSession],
) -> None:
    backend, usual, lone = shared
    lone.go_on.clear()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(backend.run, *sample(1, 5))
        assert lone.entered.wait(10)
        backend.run(*sample(1, 5))
        assert (usual.runs, lone.runs) == (1, 1)
        lone.go_on.set()
        first.result()
    backend.run(*sample(1, 5))
    assert (usual.runs, lone.runs) == (1, 2)


def test_after_a_lone_run_that_fails_the_next_text_is_alone_again(
    shared: tuple[OnnxBackend, CountingSession, CountingSession],
) -> None:
    backend, usual, lone = shared
    ids, mask, types = sample(1, 4)
    with pytest.raises(InferenceError, match="ONNX Runtime"):
        backend.run(ids + 10_000, mask, types)
    backend.run(ids, mask, types)
    assert (usual.runs, lone.runs) == (0, 2)


def test_threads_do_not_change_an_answer(artefact: Artefact) -> None:
    shared, single = (load_inference(artefact, "model.onnx", "cpu", lone_text_threads=threads) for threads in (2, 1))
    for tokens in (3, 8, 16):
        arrays = sample(1, tokens)
        np.testing.assert_allclose(shared.backend.run(*arrays), single.backend.run(*arrays), rtol=0, atol=1e-5)


def test_int8_products_are_exact_on_every_processor() -> None:
    """The largest products, whose sums of two do not fit 16 bits, as the graphs of students write them."""
    weights = np.random.default_rng(0).choice(np.array([-127, 127], np.int8), (64, 24))
    nodes = [
        helper.make_node("Cast", ["input_ids"], ["activations"], to=TensorProto.UINT8),
        helper.make_node(
            "MatMulIntegerToFloat",
            ["activations", "weights", "activation_scale", "weight_scales", "activation_zero", "weight_zero"],
            ["logits"],
            domain="com.microsoft",
        ),
    ]
    constants = {
        "weights": weights,
        "activation_scale": np.float32(1),
        "weight_scales": np.ones(24, np.float32),
        "activation_zero": np.uint8(0),
        "weight_zero": np.int8(0),
    }
    graph = helper.make_graph(
        nodes,
        "products",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["rows", 64])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["rows", 24])],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)

    backend = load_onnx_backend(model.SerializeToString(), ["input_ids"], "logits", "cpu")
    activations = np.full((5, 64), 255, np.int64)
    found = backend.run(activations, np.ones_like(activations), np.zeros_like(activations))
    assert (found == activations @ weights.astype(np.int64)).all()


def test_a_loaded_graph_holds_neither_the_bytes_that_it_came_from_nor_a_file(artefact: Artefact) -> None:
    graph = artefact.read("model.onnx")
    references, files = sys.getrefcount(graph), len(list(Path("/proc/self/fd").iterdir()))
    backend = load_onnx_backend(graph, artefact.inputs, artefact.output, "cpu", lone_text_threads=2)
    assert backend.provider == "cpu"
    assert sys.getrefcount(graph) == references
    assert len(list(Path("/proc/self/fd").iterdir())) == files


def test_each_provider_gets_the_graph_that_it_computes_fastest(artefact: Artefact) -> None:
    assert artefact.graph_file("auto") == artefact.graph_file("auto", "cpu") == "model.int8.onnx"
    assert artefact.graph_file("auto", "cuda") == "model.fp16.onnx"
    assert artefact.graph_file("auto", "openvino") == "model.onnx"
    assert artefact.graph_file("int8", "cuda") == "model.int8.onnx"


def test_a_provider_takes_the_default_where_its_favourite_is_not_there(models_folder: Path) -> None:
    folder = write_artefact(models_folder, precisions=("int8",))
    artefact = read_artefact(folder)
    assert artefact.graph_file("auto", "cuda") == artefact.graph_file("auto", "openvino") == "model.int8.onnx"


def test_on_a_gpu_runs_are_bound_to_it_and_answer_as_on_the_cpu(artefact: Artefact) -> None:
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        pytest.skip("this build of ONNX Runtime has no CUDA provider (install onnxruntime-gpu on a machine with a GPU)")
    on_cuda, on_cpu = (load_inference(artefact, "model.onnx", provider).backend for provider in ("cuda", "cpu"))
    assert on_cuda.provider == "cuda"
    arrays = sample(7, 16)
    np.testing.assert_allclose(on_cuda.run(*arrays), on_cpu.run(*arrays), rtol=1e-3, atol=1e-3)
