"""Texts to send: read from a file that the user names, or made up from a few words, the same ones in every run."""

import itertools
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from benchmarks.harness.client import classify

Item = TypeVar("Item")

SHORTEST = 4  # tokens, [CLS] and [SEP] included, here and below
SHORT = 16
# SST-2's dev sentences: mean 25, standard deviation 10, longest 55.
MEAN, DEVIATION, LONGEST_SENTENCE = 25, 10, 55
SPECIAL_TOKENS = 2
VARIETY = 500  # requests made ahead and sent in turn: making them takes the machine's time from the server
# Each is one token of BERT's English vocabulary, so that words can be counted instead of tokens.
WORD_LIST = (
    "the a this that film movie story plot actor scene music comedy drama script director audience "
    "is was feels looks seems becomes remains offers makes gives takes finds loses wants needs "
    "good bad warm cold dull funny moving clever silly slow fast long short quiet loud simple dark bright "
    "very quite rather almost never always often really too so and but or with without from into about "
    "its one every some most little much more less old new first last great poor best worst"
)
WORDS = tuple(WORD_LIST.split())


class Texts:
    """An endless supply of texts and of requests to our service that carry them."""

    def __init__(self, seed: int = 0) -> None:
        self._random = random.Random(seed)

    def text(self, fewest: int, most: int) -> str:
        """Return a text of `fewest` to `most` words."""
        return " ".join(self._random.choices(WORDS, k=self._random.randint(fewest, most)))

    def texts(self, count: int, fewest: int, most: int) -> list[str]:
        """Return several texts."""
        return [self.text(fewest, most) for _ in range(count)]

    def short(self) -> Iterator[bytes]:
        """Return requests of one sentence each, like SST-2's."""
        return itertools.cycle([classify(text) for text in self.texts(VARIETY, 5, 30)])

    def heavy(self) -> Iterator[bytes]:
        """Return requests of two texts of the bundled models' whole length, so that few a second are a full load."""
        return itertools.cycle([classify(self.texts(2, 110, 126)) for _ in range(VARIETY)])

    def lists(self, count: int) -> Iterator[bytes]:
        """Return requests of many sentences each."""
        return itertools.cycle([classify(self.texts(count, 5, 30)) for _ in range(4)])


def read_texts(path: Path) -> list[str]:
    """Return the texts of a TSV file with a header, from its first column, or else every line."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if lines and "\t" in lines[0]:
        lines = [line.split("\t")[0] for line in lines[1:]]
    if not lines:
        raise SystemExit(f"{path}: holds no text")
    return lines


def made_up_sentences(count: int, seed: int = 0) -> list[str]:
    """Return sentences whose lengths are distributed like SST-2's."""
    source = random.Random(seed)
    lengths = [round(source.gauss(MEAN, DEVIATION)) for _ in range(count)]
    return [_text(source, min(max(length, SHORTEST), LONGEST_SENTENCE)) for length in lengths]


def made_up_mix(count: int, longest: int, seed: int = 0) -> tuple[list[str], list[str]]:
    """Return `count` texts, half of 4 to 16 tokens, half of the upper half up to `longest` tokens."""
    source = random.Random(seed)
    short = [_text(source, source.randint(SHORTEST, SHORT)) for _ in range(count // 2)]
    long = [_text(source, source.randint(longest // 2 + 1, longest)) for _ in range(count // 2)]
    return short, long


def shuffled(items: Sequence[Item], seed: int = 0) -> list[Item]:
    """Return the items in an order that is random and always the same."""
    return random.Random(seed).sample(items, len(items))


def _text(source: random.Random, tokens: int) -> str:
    return " ".join([*source.choices(WORDS, k=tokens - SPECIAL_TOKENS - 1), "."])
