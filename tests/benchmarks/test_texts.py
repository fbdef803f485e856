"""Claims about the texts that the benchmark makes up, counted with a bundled student's tokenizer."""

import statistics
from collections.abc import Iterable
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from benchmarks.harness.altered_service import HANGS, NOT_A_NUMBER, RAISES, SHAPE
from benchmarks.harness.texts import WORDS, Texts, made_up_mix, made_up_sentences, read_texts, shuffled
from ladabert_compress.artefact.reading import read_manifest, read_tokenizer
from tests.test_docs import REPOSITORY


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    folder = REPOSITORY / "models" / "sst2-x10"
    return read_tokenizer(folder, read_manifest(folder))


def lengths(tokenizer: Tokenizer, texts: Iterable[str]) -> list[int]:
    return [len(tokenizer.encode(text).ids) for text in texts]


def test_every_word_is_one_token(tokenizer: Tokenizer) -> None:
    assert {word: len(tokenizer.encode(word, add_special_tokens=False).ids) for word in WORDS} == dict.fromkeys(
        WORDS, 1
    )


def test_sentences_are_as_long_as_those_of_sst2(tokenizer: Tokenizer) -> None:
    counted = lengths(tokenizer, made_up_sentences(1024))
    assert statistics.mean(counted) == pytest.approx(25, abs=1)
    assert statistics.stdev(counted) == pytest.approx(10, abs=1)
    assert min(counted) >= 4
    assert max(counted) <= 55


@pytest.mark.parametrize("longest", [128, 256])
def test_half_of_the_mix_is_short_and_half_is_long(tokenizer: Tokenizer, longest: int) -> None:
    short, long = (lengths(tokenizer, texts) for texts in made_up_mix(512, longest))
    assert len(short) == len(long) == 256
    assert (min(short), max(short)) == (4, 16)
    assert longest / 2 < min(long)
    assert max(long) <= longest


def test_made_up_texts_are_the_same_in_every_run() -> None:
    assert made_up_sentences(50) == made_up_sentences(50)
    assert made_up_sentences(50) != made_up_sentences(50, seed=1)
    assert shuffled(range(50)) == shuffled(range(50))


def test_texts_of_a_number_of_words_are_the_same_in_every_run() -> None:
    assert Texts().texts(20, 5, 30) == Texts().texts(20, 5, 30)
    counted = [len(text.split()) for text in Texts().texts(500, 5, 30)]
    assert (min(counted), max(counted)) == (5, 30)


def test_a_word_that_makes_a_run_fail_is_one_token_and_never_sent_by_chance(tokenizer: Tokenizer) -> None:
    for word in (RAISES, SHAPE, NOT_A_NUMBER, HANGS):
        assert word not in WORDS
        assert len(tokenizer.encode(word, add_special_tokens=False).ids) == 1


def test_a_tsv_file_gives_its_first_column_without_the_header(tmp_path: Path) -> None:
    file = tmp_path / "dev.tsv"
    file.write_text("sentence\tlabel\na film\t1\nanother\t0\n")
    assert read_texts(file) == ["a film", "another"]


def test_any_other_file_gives_its_lines(tmp_path: Path) -> None:
    file = tmp_path / "texts.txt"
    file.write_text("a film\n\nanother\n")
    assert read_texts(file) == ["a film", "another"]


def test_a_file_without_texts_is_one_clear_line(tmp_path: Path) -> None:
    file = tmp_path / "empty.tsv"
    file.write_text("sentence\tlabel\n")
    with pytest.raises(SystemExit, match=r"empty\.tsv: holds no text"):
        read_texts(file)
