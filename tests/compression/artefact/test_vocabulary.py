"""Claims about taking tokens out of a student that nobody reads."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from ladabert_compress.artefact.export import export_artefact
from ladabert_compress.artefact.reading import read_graph, read_manifest, read_tokenizer
from ladabert_compress.artefact.vocabulary import WORD_TABLE, check_can_be_trimmed, trim, trimmed_tokenizer
from ladabert_compress.cli.main import main
from ladabert_compress.data.batches import encode
from ladabert_compress.data.texts import LabelledTexts
from ladabert_compress.errors import OptionError
from ladabert_compress.graph.session import OnnxSession, onnx_logits
from ladabert_compress.measure.inference import predict_logits
from ladabert_compress.recipe import Recipe
from ladabert_compress.student.masks import masks_of
from ladabert_compress.student.student import Student
from ladabert_compress.training.run import CompressionResult, compress
from tests.compression.conftest import SPECIAL, WORDS, labelled_texts, models_folder

LETTERS = "abc"
PIECES = ("ab", "abc", "ca", "##bc", "##ca", "##ab", *LETTERS, *(f"##{letter}" for letter in LETTERS))
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def pieces(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """A tokenizer with pieces of words, every letter among them; its special tokens are the last."""
    described = json.loads(tokenizer.backend_tokenizer.to_str())
    vocabulary = {token: index for index, token in enumerate((*PIECES, *SPECIAL))}
    described["model"]["vocab"] = vocabulary
    described["added_tokens"] = [{**entry, "id": vocabulary[entry["content"]]} for entry in described["added_tokens"]]
    for token, entry in described["post_processor"]["special_tokens"].items():
        entry["ids"] = [vocabulary[token]]
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(described)), **names)


WORD = st.text(LETTERS, min_size=1, max_size=6)
TEXT = st.lists(WORD, min_size=1, max_size=4).map(" ".join)


@given(seen=st.lists(TEXT, min_size=1, max_size=4), other=TEXT)
def test_texts_that_were_seen_are_read_as_before_and_no_word_becomes_unknown(
    pieces: PreTrainedTokenizerFast, seen: list[str], other: str
) -> None:
    before = pieces(seen)["input_ids"]
    always = {pieces.get_vocab()[token] for token in (*SPECIAL, *LETTERS, *(f"##{letter}" for letter in LETTERS))}
    kept = sorted({token for ids in before for token in ids} | always)
    trimmed = trimmed_tokenizer(pieces, kept)
    assert len(trimmed) == len(kept)
    assert [[kept[token] for token in ids] for ids in trimmed(seen)["input_ids"]] == before
    assert trimmed.unk_token_id not in trimmed(other)["input_ids"]
    assert trimmed.convert_ids_to_tokens(trimmed(other)["input_ids"])[0] == "[CLS]"


@pytest.fixture
def few_words(teacher_folder: Path, tiny_recipe: Recipe, tmp_path: Path) -> CompressionResult:
    """A run whose training rows lack the words `cold`, `dull` and `plot`; those of dev have them."""
    texts = labelled_texts(64)
    seen = tuple(text.replace("cold", "bad").replace("dull", "bad").replace("plot", "film") for text in texts.texts)
    return compress(teacher_folder, tiny_recipe, replace(texts, texts=seen), labelled_texts(40), tmp_path / "few-words")


def tokens_of(result: CompressionResult) -> set[str]:
    return set(result.teacher.tokenizer.get_vocab()) - set(SPECIAL)


def test_the_student_of_a_smaller_vocabulary_answers_as_before_to_what_it_has_read(
    few_words: CompressionResult,
) -> None:
    assert masks_of(few_words.student.model)  # the table has a mask, whose rows go with it
    trimmed = trim(few_words, ["plot"])
    assert tokens_of(few_words) - tokens_of(trimmed) == {"cold", "dull"}
    one, other = (predict_logits(run.student.model, run.train_data, CPU) for run in (few_words, trimmed))
    assert torch.equal(one, other)
    assert trimmed.student.size().parameters < few_words.student.size().parameters
    assert trimmed.student.teacher_parameters == few_words.student.teacher_parameters
    assert predict_logits(few_words.student.model, few_words.train_data, CPU).equal(one)  # the run's own is untouched


def test_a_table_without_factors_is_trimmed_too(few_words: CompressionResult) -> None:
    whole = replace(few_words, student=Student(few_words.teacher.model))
    trimmed = trim(whole, [])
    table = trimmed.student.model.get_submodule(WORD_TABLE)
    assert table.get_parameter("weight").shape[0] == len(trimmed.teacher.tokenizer)
    one, other = (predict_logits(run.student.model, run.train_data, CPU) for run in (whole, trimmed))
    assert torch.equal(one, other)


def test_an_artefact_has_the_smaller_tokenizer_and_is_compared_with_the_whole_teacher(
    few_words: CompressionResult, tmp_path: Path
) -> None:
    folder = models_folder(tmp_path) / "small"
    manifest = export_artefact(few_words, folder, data_set="tiny", words=[])
    assert manifest == read_manifest(folder)
    tokenizer = read_tokenizer(folder, manifest)
    known = tokenizer.get_vocab_size()
    assert manifest["compression"]["vocabulary"] == {"tokens": known, "of": few_words.teacher.model.config.vocab_size}
    assert not {"cold", "dull", "plot"} & set(tokenizer.get_vocab())
    session = OnnxSession(read_graph(folder, manifest, "model.onnx"))
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]")
    rows = encode(few_words.dev_texts, few_words.dev_data.labels, fast, 32)
    logits = predict_logits(few_words.teacher.model, few_words.dev_data, CPU).numpy()
    found = onnx_logits(session, rows).argmax(axis=1)
    figures = manifest["evaluation"]["files"]["model.onnx"]
    assert figures["agreement"] == pytest.approx((found == logits.argmax(axis=1)).mean())
    assert figures["accuracy"] == pytest.approx((found == rows.labels).mean())


def test_other_kinds_of_tokenizers_are_refused() -> None:
    other = Tokenizer(models.BPE({"a": 0, "b": 1}, []))
    other.pre_tokenizer = pre_tokenizers.Whitespace()
    with pytest.raises(OptionError, match="this teacher's is BPE"):
        check_can_be_trimmed(PreTrainedTokenizerFast(tokenizer_object=other))


@pytest.mark.slow
def test_the_command_trims_what_neither_train_nor_the_list_reads(
    folder: Path, teacher_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = LabelledTexts(("good film", "bad film", "the warm plot", "awful") * 12, None, ("1", "0", "1", "0") * 12)
    lines = [f"{text}\t{label}" for text, label in zip(rows.texts, rows.labels, strict=True)]
    (folder / "train.tsv").write_text("\n".join(("sentence\tlabel", *lines)) + "\n", encoding="utf-8")
    (folder / "words.txt").write_text("nice\ndull unheard\n", encoding="utf-8")
    command = ["compress", "--teacher", "teacher", "--train", "train.tsv", "--dev", "dev.tsv", "--recipe", "tiny.toml"]
    main([*command, "--out", "models/small", "--trim-vocabulary", "words.txt"])
    small = folder / "models" / "small"
    kept = set(read_tokenizer(small, read_manifest(small)).get_vocab()) - set(SPECIAL)
    assert kept == {"good", "bad", "film", "the", "warm", "plot", "awful", "nice", "dull", "a"}
    assert set(WORDS) - kept  # some of dev's
    with pytest.raises(SystemExit):
        main([*command, "--out", "models/none", "--trim-vocabulary", "none.txt"])
    assert "--trim-vocabulary: none.txt: No such file or directory" in capsys.readouterr().err
