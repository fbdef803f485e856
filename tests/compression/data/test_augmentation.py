import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ladabert_compress.data.augmentation import join_rows, replace_words, word_neighbours
from ladabert_compress.data.batches import EncodedTexts
from ladabert_compress.data.texts import Texts

TEXTS = Texts(tuple(f"t{row}" for row in range(400)), None)


@given(share=st.floats(0, 1), seed=st.integers(0, 3), epoch=st.integers(0, 3))
def test_a_row_begins_with_its_own_text_and_ends_with_at_most_two_others(share: float, seed: int, epoch: int) -> None:
    joined = join_rows(TEXTS, share, seed=seed, epoch=epoch)
    assert [text.split()[0] for text in joined.texts] == list(TEXTS.texts)
    assert {len(text.split()) for text in joined.texts} <= {1, 2, 3}
    longer = sum(" " in text for text in joined.texts)
    assert longer == pytest.approx(share * len(TEXTS), abs=50)  # 5 standard deviations
    assert join_rows(TEXTS, share, seed=seed, epoch=epoch) == joined


def test_other_rows_are_joined_in_each_epoch() -> None:
    assert join_rows(TEXTS, 0.5, seed=0, epoch=0) != join_rows(TEXTS, 0.5, seed=0, epoch=1)
    assert join_rows(TEXTS, 0.5, seed=0, epoch=0) != join_rows(TEXTS, 0.5, seed=1, epoch=0)


def test_the_same_rows_are_joined_on_both_sides_of_a_pair() -> None:
    pairs = Texts(TEXTS.texts, tuple(text.replace("t", "p") for text in TEXTS.texts))
    joined = join_rows(pairs, 1.0, seed=0, epoch=0)
    assert joined.pairs == tuple(text.replace("t", "p") for text in joined.texts)


def rows_of(ids: list[list[int]]) -> EncodedTexts:
    tokens = np.concatenate(ids).astype(np.int32)
    bounds = np.cumsum([0, *map(len, ids)])
    return EncodedTexts(tokens, np.zeros(len(tokens), dtype=np.int8), bounds, np.zeros(len(ids), dtype=np.int64), 0)


PIECES = {
    "WordPiece": ("[CLS]", "good", "great", "bad", "awful", "film", "##s", "7", "."),
    "BPE": ("<s>", "Ġgood", "Ġgreat", "Ġbad", "Ġawful", "Ġfilm", "s", "Ġ7", "."),
    "Unigram": ("<s>", "▁good", "▁great", "▁bad", "▁awful", "▁film", "s", "▁7", "."),
}
ANGLES = torch.tensor([0.0, 0.1, 0.2, 2.0, 2.1, 4.0, 0.1, 0.1, 0.1])


@pytest.mark.parametrize("kind", PIECES)
@given(share=st.floats(0, 1), epoch=st.integers(0, 5))
def test_whole_words_alone_are_replaced_and_by_words_alone(kind: str, share: float, epoch: int) -> None:
    vocabulary = {token: index for index, token in enumerate(PIECES[kind])}
    ids = [[0, 1, 2, 8, 5, 6, 3, 7], [0, 4, 5]] * 50  # of "films", "film" is no word
    rows = rows_of(ids)
    neighbours = word_neighbours(rows, vocabulary, [0], torch.stack([ANGLES.cos(), ANGLES.sin()], dim=1))
    assert neighbours.words.tolist() == [1, 2, 3, 4, 5]
    assert neighbours.nearest[:, 0].tolist() == [2, 1, 4, 3, 4]
    replaced = replace_words(rows, neighbours, share, seed=0, epoch=epoch)
    assert replaced == replace_words(rows, neighbours, share, seed=0, epoch=epoch)
    changed = 0
    for new, old in zip(replaced.rows, ids, strict=True):
        words = {1, 2, 6} if len(old) > 3 else {1, 2}
        assert all(new[place] == token for place, token in enumerate(old) if place not in words)
        assert all(token in {1, 2, 3, 4, 5} for place, token in enumerate(new) if place in words)
        changed += sum(one != other for one, other in zip(new, old, strict=True))
    assert changed == pytest.approx(share * 250, abs=45)  # over 5 standard deviations


def test_rows_of_one_word_stay_as_they_are() -> None:
    rows = rows_of([[0, 1], [0, 1, 1]])
    neighbours = word_neighbours(rows, {"[CLS]": 0, "good": 1, "##s": 2}, [0], torch.eye(3))
    assert replace_words(rows, neighbours, 1.0, seed=0, epoch=0) == rows
