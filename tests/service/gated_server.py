"""A server whose runs wait until somebody opens a pipe for writing: `python -m tests.service.gated_server …`.

It takes the options of `ladabert-serve`; the variable GATE names the pipe (see `os.mkfifo`). Worker processes import
this module, too, so that their model is the same.
"""

import functools
import os
import sys
from pathlib import Path

import numpy as np

import ladabert_serve.server.server
from ladabert_serve.app import create_app
from ladabert_serve.backends.backend import FloatArray, IntArray
from ladabert_serve.cli import main
from ladabert_serve.models.artefact import TOKENIZER_FILE, Artefact
from ladabert_serve.models.inference import Inference
from ladabert_serve.models.tokenizer import TextTokenizer
from ladabert_serve.settings import Provider


class PipedBackend:
    """Answers zeros once the pipe has a writer."""

    provider = "cpu"

    def __init__(self, gate: Path, labels: int) -> None:
        self._gate = gate
        self._labels = labels

    def run(self, input_ids: IntArray, attention_mask: IntArray, token_type_ids: IntArray) -> FloatArray:
        """Wait for the writer."""
        self._gate.open("rb").close()
        return np.zeros((len(input_ids), self._labels), dtype=np.float32)


def load_gated(artefact: Artefact, graph_file: str, provider: Provider) -> Inference:
    """Be the loader of `create_app`."""
    tokenizer = TextTokenizer(artefact.read(TOKENIZER_FILE), artefact.max_length)
    return Inference(artefact, tokenizer, PipedBackend(Path(os.environ["GATE"]), len(artefact.labels)))


ladabert_serve.server.server.create_app = functools.partial(create_app, load=load_gated)  # type: ignore[attr-defined]

if __name__ == "__main__":
    sys.exit(main())
