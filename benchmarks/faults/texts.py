"""Sentences to send: drawn from a short list of words, the same ones in every run."""

import itertools
import random
from collections.abc import Iterator

from benchmarks.faults.client import classify

# Each is one token of BERT's vocabulary, so that a text's length in tokens is its words and two more.
WORDS = (  # noqa: SIM905 - easier to read
    "the a film story actor scene music camera plot end hour writer director cast world life moment heart "
    "warm dull bright slow quick deep thin rich strange plain bold quiet loud long short good bad great poor "
    "is was has makes gives takes shows tells loses finds keeps leaves and but with without never always often"
).split()


VARIETY = 500  # requests made ahead and sent in turn: making them takes the machine's time from the server


class Texts:
    """An endless supply of texts and of requests that carry them."""

    def __init__(self, seed: int = 0) -> None:
        self._random = random.Random(seed)

    def text(self, shortest: int, longest: int) -> str:
        """A text of `shortest` to `longest` words."""
        return " ".join(self._random.choices(WORDS, k=self._random.randint(shortest, longest)))

    def texts(self, count: int, shortest: int, longest: int) -> list[str]:
        """Several texts."""
        return [self.text(shortest, longest) for _ in range(count)]

    def short(self) -> Iterator[bytes]:
        """Requests of one sentence each, like SST-2's."""
        return itertools.cycle([classify(self.text(5, 30)) for _ in range(VARIETY)])

    def heavy(self, timeout_ms: int | None = None) -> Iterator[bytes]:
        """Requests of two texts of the bundled models' whole length, so that few a second are a full load."""
        return itertools.cycle([classify(self.texts(2, 110, 126), timeout_ms) for _ in range(VARIETY)])

    def lists(self, count: int) -> Iterator[bytes]:
        """Requests of many sentences each."""
        return itertools.cycle([classify(self.texts(count, 5, 30)) for _ in range(4)])
