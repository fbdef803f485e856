import pytest
from hypothesis import given
from hypothesis import strategies as st

from ladabert_compress.data.augmentation import join_rows
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
