import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from ladabert_compress.data.batches import EncodedTexts, divide_batch, encode
from ladabert_compress.data.texts import Texts
from tests.compression.conftest import labelled_texts

ROWS = st.lists(st.lists(st.integers(1, 250_001), min_size=1, max_size=9), min_size=1, max_size=20)


def flat(rows: list[list[int]]) -> EncodedTexts:
    tokens = np.concatenate(rows).astype(np.int32)
    types = (tokens % 2).astype(np.int8)
    return EncodedTexts(tokens, types, np.cumsum([0, *map(len, rows)]), np.arange(len(rows)), 0)


@given(rows=ROWS, data=st.data())
def test_selected_rows_have_their_own_tokens_types_and_labels(rows: list[list[int]], data: st.DataObject) -> None:
    chosen = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=30))
    found = flat(rows).select(chosen)
    assert [row.tolist() for row in found.rows] == [rows[row] for row in chosen]
    assert found.token_types.tolist() == [token % 2 for row in chosen for token in rows[row]]
    assert found.labels.tolist() == chosen
    assert found.lengths.tolist() == [len(rows[row]) for row in chosen]


@given(rows=ROWS, pad_to=st.integers(0, 12))
def test_a_batch_has_its_rows_on_the_left_and_padding_on_the_right(rows: list[list[int]], pad_to: int) -> None:
    batch, longest = flat(rows).batch(range(len(rows)), pad_to=pad_to), max(pad_to, *map(len, rows))
    padding = [[0] * (longest - len(row)) for row in rows]
    assert batch.input_ids.tolist() == [row + zeros for row, zeros in zip(rows, padding, strict=True)]
    assert batch.attention_mask.tolist() == [[1] * len(row) + zeros for row, zeros in zip(rows, padding, strict=True)]
    assert batch.token_type_ids.equal(batch.input_ids % 2)
    assert all(part.dtype == torch.int64 for part in (batch.input_ids, batch.token_type_ids, batch.labels))


@given(rows=ROWS, tokens=st.integers(1, 60))
def test_the_parts_of_a_batch_hold_each_row_once_and_no_more_tokens_than_allowed(
    rows: list[list[int]], tokens: int
) -> None:
    data, batch = flat(rows), list(range(len(rows)))
    parts = divide_batch(data, batch, tokens)
    assert [row for part in parts for row in part] == batch
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1
    for part in parts:
        assert len(part) == 1 or len(part) * max(len(rows[row]) for row in part) <= tokens


@pytest.mark.parametrize("pairs", [False, True])
def test_rows_that_are_tokenised_some_at_a_time_are_those_of_all_at_once(
    pairs: bool, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = labelled_texts(20).texts
    data = Texts(texts, tuple(reversed(texts)) if pairs else None)
    whole = encode(data, range(20), tokenizer, 8)
    monkeypatch.setattr("ladabert_compress.data.batches.ROWS_AT_ONCE", 7)
    assert encode(data, range(20), tokenizer, 8) == whole
    second, options = None if data.pairs is None else list(data.pairs), {"truncation": True, "max_length": 8}
    expected = tokenizer(list(texts), second, return_token_type_ids=True, **options)
    assert [row.tolist() for row in whole.rows] == expected["input_ids"]
    assert whole.token_types.tolist() == [kind for row in expected["token_type_ids"] for kind in row]


def test_a_digest_tells_any_change_of_the_rows() -> None:
    rows, others = flat([[1, 2], [3]]), (flat([[1], [2, 3]]), flat([[1, 2], [4]]), flat([[1, 2], [3]]).select([0, 0]))
    assert rows.digest() == flat([[1, 2], [3]]).digest()
    assert len({rows.digest(), *(other.digest() for other in others)}) == 4
    assert rows == flat([[1, 2], [3]])
    assert all(rows != other for other in others)
