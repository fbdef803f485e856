from transformers import PreTrainedTokenizerFast

from ladabert_compress.data.batches import EncodedTexts, encode
from ladabert_compress.data.overlaps import hold_out_without_overlaps, rows_within
from ladabert_compress.data.texts import LabelledTexts


def encoded(tokenizer: PreTrainedTokenizerFast, *texts: str) -> EncodedTexts:
    data = LabelledTexts(texts, None, ("0",) * len(texts))
    return encode(data, [0] * len(texts), tokenizer, 32)


def test_a_row_is_part_of_another_where_its_tokens_stand_side_by_side_there(tokenizer: PreTrainedTokenizerFast) -> None:
    data = encoded(tokenizer, "the good film", "good film", "good", "the film", "bad plot", "bad plot", "a", "")
    assert rows_within(data, range(8), range(8)) == {1, 2, 4, 5}
    assert rows_within(data, [1, 2, 3], [0]) == {1, 2}


def test_nothing_of_a_held_out_row_is_learnt_from(tokenizer: PreTrainedTokenizerFast) -> None:
    sentences = [f"{one} {other} film" for one in ("good", "great", "bad", "dull") for other in ("cold", "warm")]
    phrases = [sentence.removesuffix(" film") for sentence in sentences]
    data = encoded(tokenizer, *sentences, *phrases, "film", "plot", "the", "fine")
    rest, held_out = map(data.select, hold_out_without_overlaps(data, 100, seed=3))
    assert len(held_out) == 2  # a tenth
    short = {row.tobytes() for row in data.rows[-3:]}
    assert all(len(row) == data.lengths[0] or row.tobytes() in short for row in held_out.rows)
    kept, chosen = hold_out_without_overlaps(data, 100, seed=3)
    both = data.select(kept + chosen)
    held_rows = range(len(rest), len(both))
    assert not rows_within(both, range(len(rest)), held_rows)
    assert not rows_within(both, held_rows, range(len(rest)))
    assert tuple(map(data.select, hold_out_without_overlaps(data, 100, seed=3))) == (rest, held_out)


def test_where_no_row_is_part_of_another_all_are_kept(tokenizer: PreTrainedTokenizerFast) -> None:
    words = ("good", "great", "fine", "nice", "warm", "bad", "awful", "poor", "dull", "cold")
    data = encoded(tokenizer, *(f"the {word}" for word in words))
    rest, held_out = hold_out_without_overlaps(data, 1, seed=0)
    assert (len(rest), len(held_out)) == (9, 1)
