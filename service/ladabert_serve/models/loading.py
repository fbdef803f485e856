"""From an artefact's files to something that computes; the one place that chooses what computes."""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

from ladabert_serve.backends.backend import Backend
from ladabert_serve.backends.onnx_runtime import load_onnx_backend
from ladabert_serve.errors import ArtefactError, InferenceError, ProviderError
from ladabert_serve.models.artefact import TOKENIZER_FILE, Artefact
from ladabert_serve.models.inference import Inference
from ladabert_serve.models.onnx_file import check_graph
from ladabert_serve.models.tokenizer import TextTokenizer
from ladabert_serve.settings import OPENVINO_FIXED_TOKENS, Provider

logger = logging.getLogger(__name__)


def load_inference(
    artefact: Artefact,
    graph_file: str,
    provider: Provider,
    openvino_fixed_tokens: int = OPENVINO_FIXED_TOKENS,
    lone_text_threads: int = 1,
) -> Inference:
    """Load tokenizer and graph, try them and their self-test; raises ArtefactError or ProviderError."""
    path = artefact.folder / graph_file
    tokenizer = _load_tokenizer(artefact)
    with trial(path, artefact.max_length):
        graph = artefact.read(graph_file)
        check_graph(graph)
        backend, copies = _load_backend(artefact, graph_file, graph, provider, openvino_fixed_tokens, lone_text_threads)
        listed = artefact.manifest["files"][TOKENIZER_FILE]
        tokenizer_bytes = listed.get("decoded_bytes", listed["bytes"])
        inference = Inference(artefact, tokenizer, backend, copies * len(graph) + tokenizer_bytes)
        inference.warm_up()
        inference.self_test(graph_file)
    return inference


@contextlib.contextmanager
def trial(path: Path, max_length: int) -> Iterator[None]:
    """Raise ArtefactError for whatever goes wrong when a graph is loaded and run; ProviderError passes."""
    # Only the operator can end a graph or a tokenizer that takes for ever over a text, and has to know which.
    logger.info("%s: trying %d tokens", path, max_length)
    try:
        yield
    except (ArtefactError, InferenceError) as error:
        raise ArtefactError(f"{path}: {error}") from error
    except (ProviderError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic in the tokenizer is no Exception
        logger.debug("%s: the trial failed", path, exc_info=True)
        raise ArtefactError(f"{path}: the trial with {max_length} tokens failed: {error!r}") from error


def _load_tokenizer(artefact: Artefact) -> TextTokenizer:
    content = artefact.read(TOKENIZER_FILE)
    try:
        return TextTokenizer(content, artefact.max_length, artefact.pad_token_id)
    except ArtefactError as error:
        raise ArtefactError(f"{artefact.folder}: {error}") from error


def _load_backend(
    artefact: Artefact,
    graph_file: str,
    graph: bytes,
    provider: Provider,
    openvino_fixed_tokens: int,
    lone_text_threads: int,
) -> tuple[Backend, int]:
    """Return the backend, and how many copies of the graph it holds."""
    is_fp32 = artefact.precision_of(graph_file) == "fp32"
    if provider != "openvino":
        # The products of an int8 graph are done before another thread has woken up.
        threads = lone_text_threads if is_fp32 else 1
        onnx_backend = load_onnx_backend(graph, artefact.inputs, artefact.output, provider, threads)
        return onnx_backend, onnx_backend.copies
    try:
        from ladabert_serve.backends.openvino_runtime import load_openvino_backend
    except ImportError as error:
        raise ProviderError(
            f"provider openvino was asked for and {error.name} is not installed: pip install 'ladabert[openvino]'"
        ) from error
    # Other graphs would answer differently when compiled for one shape: see docs/results/providers.md.
    may_be_fixed = is_fp32 and artefact.task == "single"
    fixed_tokens = openvino_fixed_tokens if may_be_fixed else 0
    backend = load_openvino_backend(graph, artefact.inputs, artefact.output, artefact.max_length, fixed_tokens)
    backend.warm_up()
    return backend, 1 + len(backend.fixed_lengths)


def try_artefact(artefact: Artefact) -> None:
    """Load and run every graph of an artefact on the CPU; raises ArtefactError."""
    for graph_file in artefact.graph_files():
        load_inference(artefact, graph_file, "cpu")
