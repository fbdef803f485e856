"""A server whose graph fails when a text holds a certain word: `python -m benchmarks.faults.faulty_server …`.

It takes the options of `ladabert-serve`, with one worker.
"""

import functools
import sys
import time
from unittest import mock

import numpy as np

import service.server
from service.app import create_app
from service.artefact import Artefact
from service.backend import Backend, FloatArray, IntArray
from service.cli import main
from service.inference import Inference
from service.loading import load_inference
from service.settings import Provider
from service.tokenizer import TextInput

# Each is one token of BERT's vocabulary and none of the load's own words.
RAISES = "volcano"
SHAPE = "circle"
NOT_A_NUMBER = "nothing"
HANGS = "forever"
HANG_S = 120.0
CAUSE = "the backend met a volcano"


class FaultyBackend:
    """A backend that does what a marker word asks for when a text of the batch holds it."""

    def __init__(self, backend: Backend, ids: dict[str, int]) -> None:
        self._backend = backend
        self._ids = ids

    @property
    def provider(self) -> str:
        """Where it computes."""
        return self._backend.provider

    def run(self, input_ids: IntArray, attention_mask: IntArray, token_type_ids: IntArray) -> FloatArray:
        """Run the real backend, with a fault where a marker asks for one."""
        marked = {word for word, token in self._ids.items() if np.any(input_ids == token)}
        if RAISES in marked:
            raise RuntimeError(CAUSE)
        if HANGS in marked:
            time.sleep(HANG_S)
        logits = self._backend.run(input_ids, attention_mask, token_type_ids)
        if SHAPE in marked:
            return logits[:, :1]
        return np.full_like(logits, np.nan) if NOT_A_NUMBER in marked else logits


def load_faulty(artefact: Artefact, graph_file: str, provider: Provider) -> Inference:
    """Load as the service does, and put the fault between it and the graph."""
    inference = load_inference(artefact, graph_file, provider)
    ids: dict[str, int] = {}
    for word in (RAISES, SHAPE, NOT_A_NUMBER, HANGS):
        tokens = inference.tokenizer.tokenize(TextInput(word)).ids
        if len(tokens) != 3:
            raise ValueError(f"{word!r} is not one token of {artefact.name}")
        ids[word] = tokens[1]
    return Inference(artefact, inference.tokenizer, FaultyBackend(inference.backend, ids))


if __name__ == "__main__":
    with mock.patch.object(service.server, "create_app", functools.partial(create_app, load=load_faulty)):
        sys.exit(main())
