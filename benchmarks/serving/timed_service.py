"""Our service with a stop watch around tokenizer and model, to tell what everything else costs.

python -m benchmarks.serving.timed_service MODELS PORT

For each line on its standard input it writes its counters as one line of JSON: seconds of CPU of the process, and
of them those spent tokenising and running the model, and the texts that were tokenised.
"""

from __future__ import annotations

import functools
import json
import resource
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

from service.app import create_app
from service.artefact import Artefact
from service.inference import Inference, Logits
from service.loading import load_inference
from service.logs import configure_logging
from service.server import bind, run_server
from service.settings import Provider, Settings
from service.tokenizer import TextInput, TextTokenizer, Tokens, TruncationDirection


class Counters:
    """Sums over all threads."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.texts = 0
        self.tokenize_s = 0.0
        self.run_s = 0.0

    def tell(self) -> str:
        """Return the sums with the CPU time of the whole process."""
        usage = resource.getrusage(resource.RUSAGE_SELF)
        with self.lock:
            sums = {"texts": self.texts, "tokenize_s": self.tokenize_s, "run_s": self.run_s}
        return json.dumps({"cpu_s": usage.ru_utime + usage.ru_stime, **sums})


class TimedTokenizer(TextTokenizer):
    """A tokenizer that counts what it costs."""

    def __init__(self, artefact: Artefact, counters: Counters) -> None:
        super().__init__(artefact.read("tokenizer.json"), artefact.max_length)
        self._counters = counters

    def tokenize(self, value: TextInput, direction: TruncationDirection = "right") -> Tokens:
        """Return the input's tokens."""
        start = time.thread_time()
        tokens = super().tokenize(value, direction)
        spent = time.thread_time() - start
        with self._counters.lock:
            self._counters.texts += 1
            self._counters.tokenize_s += spent
        return tokens


class TimedInference(Inference):
    """An inference that counts what it costs; its graph runs in the calling thread alone."""

    def __init__(self, plain: Inference, counters: Counters) -> None:
        super().__init__(plain.artefact, TimedTokenizer(plain.artefact, counters), plain.backend)
        self._counters = counters

    def run(self, batch: Sequence[Tokens]) -> Sequence[Logits | Exception]:
        """Return each input's logits."""
        start = time.thread_time()
        logits = super().run(batch)
        spent = time.thread_time() - start
        with self._counters.lock:
            self._counters.run_s += spent
        return logits


def main() -> None:
    settings = Settings(models=Path(sys.argv[1]), port=int(sys.argv[2]), provider="cpu")
    configure_logging(settings)
    counters = Counters()

    def load(artefact: Artefact, graph_file: str, provider: Provider) -> Inference:
        return TimedInference(load_inference(artefact, graph_file, provider), counters)

    def answer() -> None:
        for _ in sys.stdin:
            print(counters.tell(), flush=True)

    threading.Thread(target=answer, daemon=True).start()
    timed_app = functools.partial(create_app, load=load)
    with bind(settings) as listener, mock.patch("service.server.create_app", timed_app):
        run_server(settings, listener, lambda *_: None)


if __name__ == "__main__":
    main()
