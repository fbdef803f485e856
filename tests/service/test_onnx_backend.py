"""Claims about running a graph: bound to a device or not, the answer is the same, from any thread."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from service.artefact import Artefact, read_artefact, read_schema
from service.errors import InferenceError
from service.loading import load_inference
from service.onnx_backend import OnnxBackend
from tests.service.tiny_artefact import write_artefact


@pytest.fixture(params=["single", "pair"])
def artefact(request: pytest.FixtureRequest, models_folder: Path) -> Artefact:
    folder = write_artefact(models_folder, task=request.param, precisions=("int8", "fp32", "fp16"))
    return read_artefact(folder, read_schema(folder.parent))


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


def test_each_provider_gets_the_graph_that_it_computes_fastest(artefact: Artefact) -> None:
    assert artefact.graph_file("auto") == artefact.graph_file("auto", "cpu") == "model.int8.onnx"
    assert artefact.graph_file("auto", "cuda") == "model.fp16.onnx"
    assert artefact.graph_file("auto", "openvino") == "model.onnx"
    assert artefact.graph_file("int8", "cuda") == "model.int8.onnx"


def test_a_provider_takes_the_default_where_its_favourite_is_not_there(models_folder: Path) -> None:
    folder = write_artefact(models_folder, precisions=("int8",))
    artefact = read_artefact(folder, read_schema(folder.parent))
    assert artefact.graph_file("auto", "cuda") == artefact.graph_file("auto", "openvino") == "model.int8.onnx"


def test_on_a_gpu_runs_are_bound_to_it_and_answer_as_on_the_cpu(artefact: Artefact) -> None:
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        pytest.skip("this build of ONNX Runtime has no CUDA provider (install onnxruntime-gpu on a machine with a GPU)")
    on_cuda, on_cpu = (load_inference(artefact, "model.onnx", provider).backend for provider in ("cuda", "cpu"))
    assert on_cuda.provider == "cuda"
    arrays = sample(7, 16)
    np.testing.assert_allclose(on_cuda.run(*arrays), on_cpu.run(*arrays), rtol=1e-3, atol=1e-3)
