"""Claims about tokenising: as transformers' fast tokenizers do, from any thread, at a bounded cost."""

import gzip
import json
import threading
import unicodedata
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from tokenizers.trainers import BpeTrainer, UnigramTrainer

from ladabert_serve.errors import ArtefactError
from ladabert_serve.models.locality import reads_locally
from ladabert_serve.models.tokenizer import TextInput, TextTokenizer, TruncationDirection
from tests.service.tiny_artefact import MAX_LENGTH, REPOSITORY, build_tokenizer

TOKENIZER = TextTokenizer(build_tokenizer().to_str().encode(), MAX_LENGTH)
DIRECTIONS: list[TruncationDirection] = ["right", "left"]
texts = st.text(max_size=40) | st.lists(st.sampled_from(["good", "bad", "xyz", "é"]), max_size=25).map(" ".join)
CORPUS = [
    "the quick brown fox doesn't jump over 12345 lazy dogs, again and again!",
    "日本語のテキスト 😀 naïve café",
] * 4


def bundled() -> Tokenizer:
    packed = (REPOSITORY / "models" / "sst2-latency-x4.7" / "tokenizer.json.gz").read_bytes()
    return Tokenizer.from_str(gzip.decompress(packed).decode())


def byte_level(add_prefix_space: bool = False) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    trainer = BpeTrainer(
        vocab_size=400,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 1), ("<s>", 0))
    return tokenizer


def grouped_digits() -> Tokenizer:
    tokenizer = byte_level()
    digits = pre_tokenizers.Split(Regex(r"\d{1,3}"), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    return tokenizer


def unigram(split: bool = True) -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(split=split)
    trainer = UnigramTrainer(
        vocab_size=80, special_tokens=["<unk>", "[CLS]", "[SEP]"], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    return tokenizer


def space_runs() -> Tokenizer:
    """Return a tokenizer with tokens for runs of spaces, as code models have."""
    tokenizer = byte_level()
    tokenizer.add_tokens([AddedToken(" " * length, normalized=False) for length in range(2, 25)])
    return tokenizer


def quotes() -> Tokenizer:
    """Return a tokenizer that makes one quotation mark of two, as ALBERT's does."""
    tokenizer = unigram()
    marks = [normalizers.Replace("``", '"'), normalizers.Replace("''", '"'), normalizers.NFKD()]
    tokenizer.normalizer = normalizers.Sequence([*marks, normalizers.StripAccents()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation()])
    return tokenizer


def collapsed_spaces() -> Tokenizer:
    """Return a tokenizer as XLM-RoBERTa's, but for its table of characters."""
    tokenizer = unigram()
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    return tokenizer


FAMILIES = {
    "bundled WordPiece": bundled(),
    "byte-level BPE": byte_level(),
    "byte-level BPE with a leading space": byte_level(add_prefix_space=True),
    "byte-level BPE that splits digits": grouped_digits(),
    "byte-level BPE with tokens for runs of spaces": space_runs(),
    "Unigram": unigram(),
    "Unigram with a rule for pairs of quotes": quotes(),
    "Unigram that collapses spaces": collapsed_spaces(),
    "Unigram without words": unigram(split=False),
}
pieces = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        [
            "good",
            " ",
            "  ",
            "\n",
            "1234512345",
            "١٢٣٤٥",
            "`",
            "'s",
            "'",
            "[SEP]",
            "</s>",
            "e\u0301",
            "日本語",
            "😀👩‍👩‍👧",
            "don't",
            "...",
        ]
    ),
)
long_texts = st.lists(
    st.builds(lambda piece, times: piece * times, pieces, st.sampled_from([1, 1, 2, 5, 40, 200, 1500])), max_size=12
).map("".join)


@given(text=texts, pair=st.none() | texts, direction=st.sampled_from(DIRECTIONS))
def test_no_input_is_longer_than_the_model_or_the_upper_bound(
    text: str, pair: str | None, direction: TruncationDirection
) -> None:
    value = TextInput(text, pair)
    tokens = TOKENIZER.tokenize(value, direction)
    assert 1 <= len(tokens.ids) == len(tokens.type_ids) <= min(MAX_LENGTH, TOKENIZER.upper_bounds(value)[0])
    assert tokens.truncated == (TOKENIZER.full_length(value) > MAX_LENGTH)


@pytest.mark.parametrize("max_length", [3, 7, 8, MAX_LENGTH])
@settings(deadline=None)
@given(text=texts, pair=st.none() | texts, direction=st.sampled_from(DIRECTIONS))
def test_truncation_is_that_of_the_tokenizers_library(
    max_length: int, text: str, pair: str | None, direction: TruncationDirection
) -> None:
    library = build_tokenizer()
    library.enable_truncation(max_length, strategy="longest_first", direction=direction)
    expected = library.encode(text, pair)
    tokens = TextTokenizer(build_tokenizer().to_str().encode(), max_length).tokenize(TextInput(text, pair), direction)
    assert (tokens.ids, tokens.type_ids) == (expected.ids, expected.type_ids)


@pytest.mark.parametrize("family", FAMILIES)
@example(text="1234512345" * 50, max_length=9, direction="left")
@example(text="word" * 20 + "e\u0301" * 500, max_length=4, direction="left")
@example(text=" " * 1500, max_length=9, direction="left")
@example(text="x" + "'" * 1501, max_length=9, direction="left")
@example(text="x" + "`" * 1501, max_length=9, direction="left")
@example(text="١٢٣٤٥" * 301, max_length=9, direction="left")
@given(text=long_texts, max_length=st.sampled_from([4, 9, 40]), direction=st.sampled_from(DIRECTIONS))
@settings(deadline=None, max_examples=60)
def test_a_long_text_has_the_tokens_that_it_has_when_it_is_tokenised_as_a_whole(
    family: str, text: str, max_length: int, direction: TruncationDirection
) -> None:
    library = FAMILIES[family]
    tokenizer = TextTokenizer(library.to_str().encode(), max_length)
    whole = library.encode(text, add_special_tokens=False).ids
    room = max_length - 2
    kept = whole[:room] if direction == "right" else whole[max(0, len(whole) - room) :]
    begin, *_, end = library.encode("the").ids
    tokens = tokenizer.tokenize(TextInput(text), direction)
    assert tokens.ids == [begin, *kept, end]
    assert tokens.truncated == (len(whole) > room)
    assert tokenizer.full_length(TextInput(text)) == len(whole) + 2


@pytest.mark.parametrize("family", FAMILIES)
def test_only_a_tokenizer_that_counts_along_runs_has_to_read_a_long_text_as_a_whole(family: str) -> None:
    counts = {"byte-level BPE that splits digits", "byte-level BPE with tokens for runs of spaces"}
    counts |= {"Unigram with a rule for pairs of quotes"}
    assert reads_locally(json.loads(FAMILIES[family].to_str())) == (family not in counts)


@pytest.mark.parametrize("family", FAMILIES)
@given(text=long_texts, pair=long_texts, max_length=st.sampled_from([9, 40]), direction=st.sampled_from(DIRECTIONS))
@settings(deadline=None, max_examples=40)
def test_a_long_pair_is_truncated_as_the_library_does_but_for_the_odd_token_of_two_texts_that_fill_the_model(
    family: str, text: str, pair: str, max_length: int, direction: TruncationDirection
) -> None:
    library = Tokenizer.from_str(FAMILIES[family].to_str())
    lengths = [len(library.encode(part, add_special_tokens=False)) for part in (text, pair)]
    room = max_length - library.num_special_tokens_to_add(True)
    tokens = TextTokenizer(library.to_str().encode(), max_length).tokenize(TextInput(text, pair), direction)
    library.enable_truncation(max_length, strategy="longest_first", direction=direction)
    expected = library.encode(text, pair) if max(lengths) < 300 else None  # the library takes seconds and gigabytes
    if expected is None or (min(lengths) > room and room % 2):
        assert len(tokens.ids) == max_length
        assert tokens.truncated
    else:
        assert (tokens.ids, tokens.type_ids) == (expected.ids, expected.type_ids)
        assert tokens.truncated == (sum(lengths) > room)


@pytest.mark.parametrize("family", FAMILIES)
@given(text=texts, pair=st.none() | texts)
def test_no_family_gives_more_tokens_than_the_upper_bound_but_for_compatibility_forms(
    family: str, text: str, pair: str | None
) -> None:
    assume(unicodedata.is_normalized("NFKD", text + (pair or "")))
    value = TextInput(text, pair)
    tokenizer = TextTokenizer(FAMILIES[family].to_str().encode(), 512)
    assert tokenizer.full_length(value) <= tokenizer.upper_bounds(value)[0]


def test_a_pair_of_roberta_has_two_separators_between_its_texts_and_one_type() -> None:
    tokens = TextTokenizer(byte_level().to_str().encode(), 64).tokenize(TextInput("the fox", "dogs"))
    begin, end = 0, 1
    separators = [place for place, token in enumerate(tokens.ids) if token == end]
    assert tokens.ids[0] == begin
    assert separators[-1] == len(tokens.ids) - 1
    assert separators[1] == separators[0] + 1
    assert set(tokens.type_ids) == {0}


@given(text=long_texts, pair=long_texts, direction=st.sampled_from(DIRECTIONS))
@settings(deadline=None, max_examples=40)
def test_both_texts_of_a_long_pair_keep_the_tokens_on_the_side_that_is_kept(
    text: str, pair: str, direction: TruncationDirection
) -> None:
    library = FAMILIES["bundled WordPiece"]
    tokens = TextTokenizer(library.to_str().encode(), 40).tokenize(TextInput(text, pair), direction)
    separator = library.token_to_id("[SEP]")
    first = tokens.type_ids.index(1)
    halves = tokens.ids[1 : first - 1], tokens.ids[first:-1]
    assert tokens.ids[first - 1] == tokens.ids[-1] == separator
    for part, half in zip((text, pair), halves, strict=True):
        whole = library.encode(part, add_special_tokens=False).ids
        assert half == (whole[: len(half)] if direction == "right" else whole[len(whole) - len(half) :])


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_pair_loses_from_the_longer_text_first(direction: TruncationDirection) -> None:
    value = TextInput("good film", "bad " * 40)
    assert TOKENIZER.full_length(value) == 45
    assert TOKENIZER.tokenize(value, direction).type_ids == [0] * 4 + [1] * 12


def test_left_truncation_keeps_the_end_and_the_special_tokens() -> None:
    whole = TOKENIZER.tokenize(TextInput("bad " * 20 + "good " * 14), "left")
    same = TOKENIZER.tokenize(TextInput("good " * 14))
    assert whole.ids == same.ids


class Counting:
    """A library's tokenizer that counts the characters that it reads."""

    def __init__(self, tokenizer: TextTokenizer) -> None:
        self.characters = 0
        self._library = tokenizer._tokenizer

    def encode_batch(self, batch: list[str], add_special_tokens: bool) -> object:
        self.characters += sum(map(len, batch))
        return self._library.encode_batch(batch, add_special_tokens=add_special_tokens)

    encode_batch_fast = encode_batch


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("word", ["bad ", "日", ".", "the longest of words, antidisestablishmentarianism "])
def test_only_as_much_of_a_long_text_is_tokenised_as_fills_the_model(word: str, direction: TruncationDirection) -> None:
    tokenizer = TextTokenizer(bundled().to_str().encode(), 128)
    counting = tokenizer._tokenizer = Counting(tokenizer)  # type: ignore[assignment]
    tokenizer.tokenize(TextInput(word * (65536 // len(word)), word * (65536 // len(word))), direction)
    assert isinstance(counting, Counting)
    assert 0 < counting.characters < 4096


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_text_that_never_fills_the_model_is_read_less_than_one_and_a_half_times(
    direction: TruncationDirection,
) -> None:
    tokenizer = TextTokenizer(bundled().to_str().encode(), 128)
    counting = tokenizer._tokenizer = Counting(tokenizer)  # type: ignore[assignment]
    tokenizer.tokenize(TextInput("a" * 65536), direction)
    assert isinstance(counting, Counting)
    assert counting.characters < 1.5 * 65536


def test_other_threads_run_python_while_a_text_is_tokenised() -> None:
    tokenizer = TextTokenizer(bundled().to_str().encode(), 128)
    began, ended = threading.Event(), threading.Event()

    def tokenize() -> None:
        began.set()
        tokenizer.full_length(TextInput("a good film " * 50_000))
        ended.set()

    thread = threading.Thread(target=tokenize)
    thread.start()
    began.wait()
    turns = 0
    while not ended.wait(1e-6):  # each wait gives the lock away, and gets it back at once only when it is free
        turns += 1
    thread.join()
    assert turns > 100


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


def test_an_input_without_any_token_is_read_as_one_padding_token() -> None:
    plain = build_tokenizer()
    plain.post_processor = processors.TemplateProcessing(single="$A:0", pair="$A:0 $B:1", special_tokens=[])
    tokenizer = TextTokenizer(plain.to_str().encode(), MAX_LENGTH)
    for value in (TextInput(""), TextInput(" \n"), TextInput("", "")):
        assert tokenizer.tokenize(value) == ([tokenizer.pad_id], [0], False)
        assert tokenizer.upper_bounds(value)[0] >= 1
    assert tokenizer.tokenize(TextInput("", "bad")).type_ids == [1]


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b'{"model": 3}'])
def test_a_broken_tokenizer_is_an_artefact_error(content: bytes) -> None:
    with pytest.raises(ArtefactError, match=r"tokenizer\.json"):
        TextTokenizer(content, MAX_LENGTH)


def test_a_model_that_is_too_short_for_the_special_tokens_is_an_artefact_error() -> None:
    with pytest.raises(ArtefactError, match="2 special tokens"):
        TextTokenizer(build_tokenizer().to_str().encode(), 2)


def test_a_tokenizer_that_puts_the_second_text_first_is_an_artefact_error() -> None:
    swapped = build_tokenizer()
    swapped.post_processor = processors.TemplateProcessing(single="$A", pair="$B $A", special_tokens=[])
    with pytest.raises(ArtefactError, match="order"):
        TextTokenizer(swapped.to_str().encode(), MAX_LENGTH)
