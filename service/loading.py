"""From an artefact's files to something that computes; the one place that chooses ONNX Runtime."""

from service.artefact import TOKENIZER_FILE, Artefact
from service.errors import ArtefactError, InferenceError
from service.inference import Inference
from service.onnx_backend import load_onnx_backend
from service.settings import Provider
from service.tokenizer import TextTokenizer


def load_inference(artefact: Artefact, graph_file: str, provider: Provider) -> Inference:
    """Load tokenizer and graph and run them once; raises ArtefactError or ProviderError."""
    try:
        tokenizer = TextTokenizer(artefact.read(TOKENIZER_FILE), artefact.max_length)
    except ArtefactError as error:
        raise ArtefactError(f"{artefact.folder}: {error}") from error
    try:
        graph = artefact.read(graph_file)
        inference = Inference(artefact, tokenizer, load_onnx_backend(graph, artefact.inputs, artefact.output, provider))
        inference.warm_up()
    except (ArtefactError, InferenceError) as error:
        raise ArtefactError(f"{artefact.folder / graph_file}: {error}") from error
    return inference


def try_artefact(artefact: Artefact) -> None:
    """Load and run every graph of an artefact on the CPU; raises ArtefactError."""
    for graph_file in artefact.graph_files():
        load_inference(artefact, graph_file, "cpu")
