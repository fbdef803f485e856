"""Claims about tokenising: as transformers' fast tokenizers do, from any thread."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import ArtefactError
from service.tokenizer import TextInput, TextTokenizer, TruncationDirection
from tests.service.tiny_artefact import MAX_LENGTH, build_tokenizer

TOKENIZER = TextTokenizer(build_tokenizer().to_str().encode(), MAX_LENGTH)
DIRECTIONS: list[TruncationDirection] = ["right", "left"]
texts = st.text(max_size=40) | st.lists(st.sampled_from(["good", "bad", "xyz", "é"]), max_size=25).map(" ".join)


@given(text=texts, pair=st.none() | texts, direction=st.sampled_from(DIRECTIONS))
def test_no_input_is_longer_than_the_model_or_the_upper_bound(
    text: str, pair: str | None, direction: TruncationDirection
) -> None:
    value = TextInput(text, pair)
    tokens = TOKENIZER.tokenize(value, direction)
    assert len(tokens.ids) == len(tokens.type_ids) <= min(MAX_LENGTH, TOKENIZER.upper_bound(value))
    assert tokens.truncated == (tokens.full_length > MAX_LENGTH)


@pytest.mark.parametrize("max_length", [3, 7, 8, MAX_LENGTH])
@given(text=texts, pair=st.none() | texts, direction=st.sampled_from(DIRECTIONS))
def test_truncation_is_that_of_the_tokenizers_library(
    max_length: int, text: str, pair: str | None, direction: TruncationDirection
) -> None:
    library = build_tokenizer()
    library.enable_truncation(max_length, strategy="longest_first", direction=direction)
    expected = library.encode(text, pair)
    tokens = TextTokenizer(build_tokenizer().to_str().encode(), max_length).tokenize(TextInput(text, pair), direction)
    assert (tokens.ids, tokens.type_ids) == (expected.ids, expected.type_ids)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_pair_loses_from_the_longer_text_first(direction: TruncationDirection) -> None:
    tokens = TOKENIZER.tokenize(TextInput("good film", "bad " * 40), direction)
    assert tokens.full_length == 45
    assert tokens.type_ids == [0] * 4 + [1] * 12


def test_left_truncation_keeps_the_end_and_the_special_tokens() -> None:
    whole = TOKENIZER.tokenize(TextInput("bad " * 20 + "good " * 14), "left")
    same = TOKENIZER.tokenize(TextInput("good " * 14))
    assert whole.ids == same.ids


def test_threads_that_cut_on_different_sides_do_not_disturb_each_other() -> None:
    value = TextInput("bad " * 20 + "good " * 20)
    expected = {direction: TOKENIZER.tokenize(value, direction).ids for direction in DIRECTIONS}
    with ThreadPoolExecutor(4) as pool:
        wanted = DIRECTIONS * 100
        found = pool.map(lambda direction: TOKENIZER.tokenize(value, direction).ids, wanted)
        assert all(ids == expected[direction] for direction, ids in zip(wanted, found, strict=True))


def test_truncation_and_padding_baked_into_the_file_are_ignored() -> None:
    baked = build_tokenizer()
    baked.enable_truncation(4)
    baked.enable_padding(length=32)
    tokens = TextTokenizer(baked.to_str().encode(), MAX_LENGTH).tokenize(TextInput("a good bad film"))
    assert (len(tokens.ids), tokens.truncated) == (6, False)


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b'{"model": 3}'])
def test_a_broken_tokenizer_is_an_artefact_error(content: bytes) -> None:
    with pytest.raises(ArtefactError, match=r"tokenizer\.json"):
        TextTokenizer(content, MAX_LENGTH)
