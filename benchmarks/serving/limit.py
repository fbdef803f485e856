"""What the machine can do without a server: our tokenizer and graph in this process, on every core.

All texts are known before the first is computed, so they are sorted by length as a whole; a server, which sees a
few at a time, cannot be faster than this.
"""

import statistics
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from benchmarks.serving.graphs import Graph
from ladabert_serve.cores import available_cores
from ladabert_serve.models.loading import load_inference
from ladabert_serve.models.tokenizer import TextInput, Tokens

BATCH_SIZES = (1, 4, 8, 16, 32)


class InProcess:
    """A graph loaded as the service loads it, with one-thread runners on all cores."""

    def __init__(self, graph: Graph) -> None:
        self.inference = load_inference(graph.artefact, graph.artefact.graph_file("auto"), "cpu")
        self._cores = available_cores()
        self._pool = ThreadPoolExecutor(self._cores)

    def close(self) -> None:
        """End the runners."""
        self._pool.shutdown()

    def labels(self, texts: Iterable[str]) -> list[str]:
        """Return the label of each text."""
        answers = []
        for text in texts:
            (logits,) = self.inference.run([self._tokenize(text)])
            if isinstance(logits, Exception):
                raise logits
            answers.append(self.inference.artefact.labels[logits.index(max(logits))])
        return answers

    def texts_per_s(self, texts: Sequence[str], batch_size: int, seconds: float) -> float:
        """Return the rate of tokenising, sorting and running all texts, again and again until the time is up."""
        start = time.perf_counter()
        passes = 0
        while passes == 0 or time.perf_counter() - start < seconds:
            share = -(-len(texts) // self._cores)
            parts = [texts[first : first + share] for first in range(0, len(texts), share)]
            tokens = [entry for part in self._pool.map(self._tokenize_all, parts) for entry in part]
            list(self._pool.map(self.inference.run, sorted_batches(tokens, batch_size)))
            passes += 1
        return passes * len(texts) / (time.perf_counter() - start)

    def best_batch_size(self, texts: Sequence[str], seconds: float) -> int:
        """Return the batch size with the highest rate."""
        return max(BATCH_SIZES, key=lambda size: self.texts_per_s(texts, size, seconds))

    def call_ms(self, texts: Sequence[str], seconds: float) -> float:
        """Return the median time of one call for one text, tokenising included, on one thread."""
        times: list[float] = []
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            start = time.perf_counter()
            self.inference.run([self._tokenize(texts[len(times) % len(texts)])])
            times.append((time.perf_counter() - start) * 1000)
        return statistics.median(times)

    def _tokenize(self, text: str) -> Tokens:
        return self.inference.tokenizer.tokenize(TextInput(text))

    def _tokenize_all(self, texts: Sequence[str]) -> list[Tokens]:
        return [self._tokenize(text) for text in texts]


def sorted_batches(tokens: Sequence[Tokens], batch_size: int) -> list[list[Tokens]]:
    """Return batches of near-equal length, the longest first so that the cores end at nearly the same time."""
    by_length = sorted(tokens, key=lambda entry: -len(entry.ids))
    return [by_length[first : first + batch_size] for first in range(0, len(by_length), batch_size)]
