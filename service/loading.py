"""From an artefact's files to something that computes; the one place that chooses what computes."""

from service.artefact import TOKENIZER_FILE, Artefact
from service.backend import Backend
from service.errors import ArtefactError, InferenceError, ProviderError
from service.inference import Inference
from service.onnx_backend import load_onnx_backend
from service.settings import OPENVINO_FIXED_TOKENS, Provider
from service.tokenizer import TextTokenizer


def load_inference(
    artefact: Artefact,
    graph_file: str,
    provider: Provider,
    openvino_fixed_tokens: int = OPENVINO_FIXED_TOKENS,
    lone_text_threads: int = 1,
) -> Inference:
    """Load tokenizer and graph, try them and their self-test; raises ArtefactError or ProviderError."""
    try:
        tokenizer = TextTokenizer(artefact.read(TOKENIZER_FILE), artefact.max_length)
    except ArtefactError as error:
        raise ArtefactError(f"{artefact.folder}: {error}") from error
    try:
        backend = _load_backend(artefact, graph_file, provider, openvino_fixed_tokens, lone_text_threads)
        inference = Inference(artefact, tokenizer, backend)
        inference.warm_up()
        inference.self_test(graph_file)
    except (ArtefactError, InferenceError) as error:
        raise ArtefactError(f"{artefact.folder / graph_file}: {error}") from error
    return inference


def _load_backend(
    artefact: Artefact, graph_file: str, provider: Provider, openvino_fixed_tokens: int, lone_text_threads: int
) -> Backend:
    graph = artefact.read(graph_file)
    is_fp32 = artefact.precision_of(graph_file) == "fp32"
    if provider != "openvino":
        # The products of an int8 graph are done before another thread has woken up.
        threads = lone_text_threads if is_fp32 else 1
        return load_onnx_backend(graph, artefact.inputs, artefact.output, provider, threads)
    try:
        from service.openvino_backend import load_openvino_backend
    except ImportError as error:
        raise ProviderError(
            f"provider openvino was asked for and {error.name} is not installed: pip install 'ladabert[openvino]'"
        ) from error
    # Others would answer differently in a graph for one shape, as OpenVINO rounds elsewhere in it: docs/providers.md.
    may_be_fixed = is_fp32 and artefact.task == "single"
    fixed_tokens = openvino_fixed_tokens if may_be_fixed else 0
    backend = load_openvino_backend(graph, artefact.inputs, artefact.output, artefact.max_length, fixed_tokens)
    backend.warm_up()
    return backend


def try_artefact(artefact: Artefact) -> None:
    """Load and run every graph of an artefact on the CPU; raises ArtefactError."""
    for graph_file in artefact.graph_files():
        load_inference(artefact, graph_file, "cpu")
