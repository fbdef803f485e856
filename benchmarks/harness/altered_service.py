"""Our service with a change between it and its graphs; takes the options of `ladabert-serve`, with one worker.

python -m benchmarks.harness.altered_service timed|faulty|lone [OPTIONS]

`timed` has a stop watch around tokenizer and model, to tell what everything else costs. For each line on its standard
input it writes its counters as a line of JSON: seconds of CPU of the process and, of them, those spent tokenising and
running the model, and the texts tokenised. `faulty` fails when a text holds one of the words below.
`lone` has no inference route but POST /classify.
"""

import functools
import json
import sys
import threading
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np

import ladabert_serve.app
import ladabert_serve.server.server
from ladabert_serve.app import create_app
from ladabert_serve.backends.backend import Backend, FloatArray, IntArray
from ladabert_serve.cli import main
from ladabert_serve.models.artefact import Artefact
from ladabert_serve.models.inference import Inference
from ladabert_serve.models.loading import load_inference
from ladabert_serve.models.tokenizer import TextInput
from ladabert_serve.routes.classify import ROUTE
from ladabert_serve.settings import Provider

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


class StopWatch:
    """Sums over all threads of what tokenizers and models cost them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sums = {"texts": 0.0, "tokenize_s": 0.0, "run_s": 0.0}

    def load(self, artefact: Artefact, graph_file: str, provider: Provider) -> Inference:
        """Load as the service does, and count what tokenising and running cost; a graph runs in its caller's thread."""
        inference = load_inference(artefact, graph_file, provider)
        tokenizer = inference.tokenizer
        tokenizer.tokenize = self._counted("tokenize_s", tokenizer.tokenize, texts=1)  # type: ignore[method-assign]
        inference.run = self._counted("run_s", inference.run)  # type: ignore[method-assign]
        return inference

    def answer_lines(self) -> None:
        """Write the counters for each line of the standard input."""
        for _ in sys.stdin:
            with self._lock:
                sums = json.dumps({"cpu_s": time.process_time(), **self._sums})
            print(sums, flush=True)

    def _counted(self, name: str, function: Callable[..., Any], texts: int = 0) -> Callable[..., Any]:
        def wrapper(*arguments: Any, **options: Any) -> Any:
            start = time.thread_time()
            result = function(*arguments, **options)
            spent = time.thread_time() - start
            with self._lock:
                self._sums[name] += spent
                self._sums["texts"] += texts
            return result

        return wrapper


def run(kind: str) -> int:
    """Serve with the change of this name until told to stop."""
    watch = StopWatch()
    if kind == "timed":
        threading.Thread(target=watch.answer_lines, daemon=True).start()
    if kind == "lone":
        with mock.patch.object(ladabert_serve.app, "INFERENCE_ROUTES", (ROUTE,)):
            return main()
    load = {"timed": watch.load, "faulty": load_faulty}[kind]
    with mock.patch.object(ladabert_serve.server.server, "create_app", functools.partial(create_app, load=load)):
        return main()


if __name__ == "__main__":
    sys.exit(run(sys.argv.pop(1)))
