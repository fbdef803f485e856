"""A server whose runs wait until somebody opens a pipe for writing: `python -m tests.service.gated_server …`.

It takes the options of `ladabert-serve`; the variable GATE names the pipe (see `os.mkfifo`). Worker processes import
this module, too, so that their model is the same.
"""

import functools
import os
import sys
from pathlib import Path

import numpy as np

import service.server
from service.app import create_app
from service.artefact import TOKENIZER_FILE, Artefact
from service.backend import FloatArray, IntArray
from service.cli import main
from service.inference import Inference
from service.settings import Provider
from service.tokenizer import TextTokenizer


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


service.server.create_app = functools.partial(create_app, load=load_gated)  # type: ignore[attr-defined]

if __name__ == "__main__":
    sys.exit(main())
