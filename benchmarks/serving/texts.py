"""The texts that clients send: read from a file that the user names, or made up from a few words, seeded."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

Item = TypeVar("Item")

SHORTEST = 4  # tokens, [CLS] and [SEP] included, here and below
SHORT = 16
# SST-2's dev sentences: mean 25, standard deviation 10, longest 55.
MEAN, DEVIATION, LONGEST_SENTENCE = 25, 10, 55
SPECIAL_TOKENS = 2
# Each is one token of BERT's English vocabulary, so that words can be counted instead of tokens.
WORD_LIST = (
    "the a this that film movie story plot actor scene music comedy drama script director audience "
    "is was feels looks seems becomes remains offers makes gives takes finds loses wants needs "
    "good bad warm cold dull funny moving clever silly slow fast long short quiet loud simple dark bright "
    "very quite rather almost never always often really too so and but or with without from into about "
    "its one every some most little much more less old new first last great poor best worst"
)
WORDS = tuple(WORD_LIST.split())


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
    copy = list(items)
    random.Random(seed).shuffle(copy)
    return copy


def _text(source: random.Random, tokens: int) -> str:
    words = source.choices(WORDS, k=tokens - SPECIAL_TOKENS - 1)
    return " ".join([*words, "."])
