"""More varied rows for a student to learn from, which the teacher labels as it labels all others."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ladabert_compress.data.batches import EncodedTexts
from ladabert_compress.data.texts import Texts

MOST_APPENDED = 2  # rows
NEIGHBOURS = 15  # words to choose from, as TinyBERT does
WORD_STARTS = ("Ġ", "▁")  # what byte-level BPE and Unigram write before a word; WordPiece marks the other pieces
CHUNK = 1024  # words that are compared with all others at once


def join_rows(texts: Texts, share: float, *, seed: int, epoch: int) -> Texts:
    """The same rows, of which about ``share`` have one or two others appended: a function of its arguments alone.

    A pair's first texts are joined, and so are its second texts. The result has no labels: the first row's need not be
    the whole's.
    """
    generator = np.random.default_rng((seed, epoch))
    appended = generator.integers(1, MOST_APPENDED, size=len(texts), endpoint=True)
    appended[generator.random(len(texts)) >= share] = 0
    others = generator.integers(len(texts), size=(len(texts), MOST_APPENDED))
    groups = [(row, *chosen[:count]) for row, (chosen, count) in enumerate(zip(others, appended, strict=True))]
    return Texts(_joined(texts.texts, groups), None if texts.pairs is None else _joined(texts.pairs, groups))


def _joined(texts: tuple[str, ...], groups: list[tuple[int, ...]]) -> tuple[str, ...]:
    return tuple(" ".join(texts[row] for row in group) for group in groups)


@dataclass(frozen=True)
class WordNeighbours:
    """Which tokens may stand in the place of which.

    Attributes:
        words: the tokens that are words and occur in the rows, in order.
        nearest: (words, neighbours) token ids.
        continues: (vocabulary,), whether a token goes on with the word before it.
    """

    words: npt.NDArray[np.int64]
    nearest: npt.NDArray[np.int64]
    continues: npt.NDArray[np.bool_]


@torch.no_grad()
def word_neighbours(
    rows: EncodedTexts, vocabulary: Mapping[str, int], special: Collection[int], table: Tensor
) -> WordNeighbours:
    """For each word of the rows that is one token, the words of the rows that lie nearest in a table of embeddings.

    A fine-tuned classifier has no head that proposes words for a mask; its word embeddings it has (TinyBERT, Jiao et
    al. 2020, algorithm 1, takes other embeddings for words of several pieces).

    Args:
        rows: to take the words from.
        vocabulary: token to id.
        special: ids that are no words.
        table: (vocabulary, columns).
    """
    is_word, continues = np.zeros(len(table), dtype=bool), np.zeros(len(table), dtype=bool)
    is_word_piece = any(token.startswith("##") for token in vocabulary) or not any(
        token.startswith(WORD_STARTS) for token in vocabulary
    )
    for token, index in vocabulary.items():
        starts = not token.startswith("##") if is_word_piece else token.startswith(WORD_STARTS)
        letters = token.lstrip("".join(WORD_STARTS))
        is_word[index] = starts and letters.isalpha() and index not in special
        continues[index] = not starts and any(map(str.isalnum, token)) and index not in special
    seen = np.unique(rows.token_ids).astype(np.int64)
    words = seen[is_word[seen]]
    directions = torch.nn.functional.normalize(table[torch.from_numpy(words).to(table.device)].float(), dim=1)
    count, found = min(NEIGHBOURS, max(0, len(words) - 1)), []
    for start in range(0, len(words), CHUNK):
        alike = directions[start : start + CHUNK] @ directions.T
        own = torch.arange(len(alike), device=alike.device)
        alike[own, start + own] = -torch.inf
        found.append(alike.topk(count, dim=1).indices.cpu())
    nearest = words[torch.cat(found).numpy()] if found else np.empty((0, 0), dtype=np.int64)
    return WordNeighbours(words, nearest, continues)


def replace_words(
    rows: EncodedTexts, neighbours: WordNeighbours, share: float, *, seed: int, epoch: int
) -> EncodedTexts:
    """The same rows, of whose words about ``share`` are replaced by neighbours: a function of its arguments alone.

    Words of several tokens stay. The rows keep their lengths; their labels need no longer be right.
    """
    if not neighbours.nearest.size:
        return rows
    generator = np.random.default_rng((seed, epoch))
    tokens = rows.token_ids
    places = np.searchsorted(neighbours.words, tokens).clip(max=len(neighbours.words) - 1)
    alone = neighbours.words[places] == tokens
    alone[:-1] &= ~neighbours.continues[tokens[1:]]  # a row begins with a special token, which goes on with no word
    chosen = alone & (generator.random(len(tokens)) < share)
    columns = generator.integers(neighbours.nearest.shape[1], size=len(tokens))
    replaced = np.where(chosen, neighbours.nearest[places, columns], tokens).astype(np.int32)
    return replace(rows, token_ids=replaced)
