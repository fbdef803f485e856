"""Files under the names that GLUE, SNLI and the hub give their columns; every row is invented."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from ladabert_compress.data.columns import Columns
from ladabert_compress.data.labels import scores_of
from ladabert_compress.data.reading import read_labelled_texts
from ladabert_compress.data.texts import LabelledTexts
from ladabert_compress.errors import DataError

PARSES = ("sentence1_binary_parse", "sentence2_binary_parse", "sentence1_parse", "sentence2_parse")
ANNOTATORS = ("label1", "label2", "label3", "label4", "label5")


def file_of(folder: Path, name: str, *lines: tuple[str, ...], mark: str = "") -> str:
    path = folder / name
    path.write_text(mark + "\n".join("\t".join(line) for line in lines) + "\n", encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("header", "row", "expected"),
    [
        (("sentence", "label"), ("warm plot", "1"), (("warm plot",), None, ("1",))),  # SST-2
        (
            ("index", "question", "sentence", "label"),
            ("0", "who?", "she", "entailment"),
            (("who?",), ("she",), ("entailment",)),
        ),
        (
            ("id", "qid1", "qid2", "question1", "question2", "is_duplicate"),  # QQP
            ("9", "1", "2", "why?", "how?", "0"),
            (("why?",), ("how?",), ("0",)),
        ),
        (
            ("index", "promptID", "pairID", "genre", *PARSES, "sentence1", "sentence2", "label1", "gold_label"),  # MNLI
            (
                "0",
                "3",
                "3n",
                "letters",
                "( a )",
                "( b )",
                "(A)",
                "(B)",
                "it rains",
                "it is wet",
                "neutral",
                "entailment",
            ),
            (("it rains",), ("it is wet",), ("entailment",)),
        ),
        (
            ("index", "sentence1", "sentence2", "label"),
            ("0", "a", "b", "not_entailment"),
            (("a",), ("b",), ("not_entailment",)),
        ),
        (("index", "sentence1", "sentence2", "label"), ("0", "a", "b", "1"), (("a",), ("b",), ("1",))),  # WNLI
        (
            ("Quality", "#1 ID", "#2 ID", "#1 String", "#2 String"),  # MRPC
            ("1", "70", "71", '"a', "b"),
            (('"a',), ("b",), ("1",)),
        ),
        (("source", "label", "star", "sentence"), ("x1", "0", "*", "cold the"), (("cold the",), None, ("0",))),  # CoLA
    ],
)
def test_a_task_of_glue_is_read_under_its_own_names(
    tmp_path: Path, header: tuple[str, ...], row: tuple[str, ...], expected: tuple[Any, ...]
) -> None:
    assert read_labelled_texts(file_of(tmp_path, "a.tsv", header, row)) == LabelledTexts(*expected)


def test_mrpc_in_its_first_form_has_a_byte_order_mark_and_another_ending(tmp_path: Path) -> None:
    header = ("Quality", "#1 ID", "#2 ID", "#1 String", "#2 String")
    source = file_of(tmp_path, "msr.txt", header, ("1", "70", "71", "a", "b"), mark="\ufeff")
    assert read_labelled_texts(source) == LabelledTexts(("a",), ("b",), ("1",))


def test_sts_b_has_scores(tmp_path: Path) -> None:
    header = (
        "index",
        "genre",
        "filename",
        "year",
        "old_index",
        "source1",
        "source2",
        "sentence1",
        "sentence2",
        "score",
    )
    row = ("0", "news", "f", "2012", "1", "none", "none", "a", "b", "3.750")
    texts = read_labelled_texts(file_of(tmp_path, "a.tsv", header, row))
    assert (texts.texts, texts.pairs, scores_of("--train", texts)) == (("a",), ("b",), [3.75])


def test_sts_b_with_three_columns_is_a_pair_with_scores(tmp_path: Path) -> None:
    rows = (("sentence1", "sentence2", "score"), ("a", "b", "3.750"), ("c", "d", "0"))
    texts = read_labelled_texts(file_of(tmp_path, "a.tsv", *rows))
    assert (texts.texts, texts.pairs, scores_of("--train", texts)) == (("a", "c"), ("b", "d"), [3.75, 0.0])


def test_cola_without_a_header_is_refused_with_the_names_to_add(tmp_path: Path) -> None:
    source = file_of(tmp_path, "a.tsv", ("x1", "1", "", "the film is warm"), ("x1", "0", "*", "film the warm is"))
    with pytest.raises(DataError, match="CoLA's files lack it: source, label, star, sentence"):
        read_labelled_texts(source)


def test_rows_of_snli_without_agreement_are_left_out(tmp_path: Path) -> None:
    header = ("index", "captionID", "pairID", *PARSES, "sentence1", "sentence2", *ANNOTATORS, "gold_label")
    start = ("0", "c", "p", "( a )", "( b )", "(A)", "(B)")
    votes = ("neutral", "entailment", "contradiction", "neutral", "entailment")
    rows = [(*start, "a", "b", *votes, gold) for gold in ("neutral", "-", "entailment")]
    texts = read_labelled_texts(file_of(tmp_path, "a.tsv", header, *rows))
    assert texts == LabelledTexts(("a", "a"), ("b", "b"), ("neutral", "entailment"))
    assert any("1 rows without a label are left out (1 with -)" in note for note in texts.notes)


@pytest.mark.parametrize(
    ("header", "columns", "expected"),
    [
        (("Text", "Label"), Columns(), ("Text", None, "Label")),
        (("id", "Review", "Sentiment"), Columns(), ("Review", None, "Sentiment")),
        (("tweet", "class"), Columns(), ("tweet", None, "class")),
        (("Premise", "Hypothesis", "label"), Columns(), ("Premise", "Hypothesis", "label")),
        (("text", "text_pair", "label"), Columns(), ("text", "text_pair", "label")),
        (("title", "text", "label"), Columns(text="TITLE", text_pair="text"), ("title", "text", "label")),
        (("title", "text", "label"), Columns(text="text"), ("text", None, "label")),
        (("body", "note", "label"), Columns(text_pair="note"), ("body", "note", "label")),
        (("text", "label", "score"), Columns(), ("text", None, "label")),
    ],
)
def test_free_names_are_found_whatever_their_letters(
    tmp_path: Path, header: tuple[str, ...], columns: Columns, expected: tuple[str | None, ...]
) -> None:
    texts = read_labelled_texts(
        file_of(tmp_path, "a.tsv", header, header), columns
    )  # each cell holds its column's name
    text, pair, label = expected
    assert (texts.texts, texts.pairs, texts.labels) == ((text,), pair and (pair,), (label,))


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (
            ("title", "text", "label"),
            "text, title may all be the text; choose one with --text text or --text title, or a",
        ),
        (
            ("question", "text", "label"),
            "--text text or --text question, or a pair as in --text text --text-pair question",
        ),
        (("premise", "sentence", "label"), "sentence, premise may all be the text"),
        (("sentence2", "text", "label"), "text, sentence2 may all be the text"),
        (("sentence1", "sentence2", "text", "label"), "as in --text sentence1 --text-pair sentence2"),
        (("text", "sentiment", "rating"), "sentiment, rating may all be the label; choose with --label sentiment or"),
    ],
)
def test_where_more_than_one_column_may_be_meant_the_choices_are_shown(
    tmp_path: Path, header: tuple[str, ...], message: str
) -> None:
    with pytest.raises(DataError) as caught:
        read_labelled_texts(file_of(tmp_path, "a.tsv", header, header))
    assert message in str(caught.value)


class Rows(list[dict[str, Any]]):
    """Stands for a data set of the hub."""

    def __init__(self, rows: list[dict[str, Any]], **names: list[str]) -> None:
        super().__init__(rows)
        columns = dict.fromkeys(rows[0])
        self.features = {name: SimpleNamespace(names=names[name]) if name in names else None for name in columns}


LABELS = ["entailment", "neutral", "contradiction"]
SNLI = [{"premise": "a", "hypothesis": "b", "label": label} for label in (0, 2, -1)]
HUB = {
    ("stanfordnlp/snli",): {"train": Rows(SNLI, label=LABELS), "validation": Rows(SNLI[:1], label=LABELS)},
    ("glue", "mnli"): {"train": Rows(SNLI, label=LABELS), "validation_matched": Rows(SNLI[1:], label=LABELS)},
    ("glue", "stsb"): {"train": Rows([{"sentence1": "a", "sentence2": "b", "label": 2.5, "idx": 0}])},
    ("super_glue", "boolq"): {"train": Rows([{"question": "q", "passage": "p", "label": 1}], label=["False", "True"])},
    ("ag_news",): {
        "train": Rows([{"text": "a", "label": 1}], label=["World", "Sports"]),
        "test": Rows([{"text": "b", "label": 0}], label=["World", "Sports"]),
    },
}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> None:
    def splits(*path: str) -> list[str]:
        if path not in HUB:
            raise FileNotFoundError(f"{'/'.join(path)} is not on the hub")
        return list(HUB[path])

    fake = ModuleType("datasets")
    fake.get_dataset_split_names = splits  # type: ignore[attr-defined]
    fake.load_dataset = lambda *path, split: HUB[path][split]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "datasets", fake)


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize(
    ("source", "training", "expected"),
    [
        ("hub:stanfordnlp/snli", True, (("a", "a"), ("b", "b"), ("entailment", "contradiction"))),
        ("hub:stanfordnlp/snli", False, (("a",), ("b",), ("entailment",))),
        ("hub:glue/mnli", False, (("a",), ("b",), ("contradiction",))),
        ("hub:glue/mnli:train", False, (("a", "a"), ("b", "b"), ("entailment", "contradiction"))),
        ("hub:glue/stsb", True, (("a",), ("b",), ("2.5",))),
        ("hub:super_glue/boolq", True, (("q",), ("p",), ("True",))),
        ("hub:ag_news", True, (("a",), None, ("Sports",))),
        ("hub:ag_news", False, (("b",), None, ("World",))),
    ],
)
def test_a_data_set_of_the_hub_has_its_split_columns_and_label_names(
    source: str, training: bool, expected: tuple[Any, ...]
) -> None:
    assert read_labelled_texts(source, training=training) == LabelledTexts(*expected)


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("hub:nobody/nothing", "hub:nobody/nothing: cannot be found: nobody/nothing is not on the hub"),
        ("hub:glue/mnli:test", "no such split; choose one of train, validation_matched with hub:glue/mnli:SPLIT"),
        ("hub:super_glue/copa", "is no classification of one text or a pair; boolq, cb, rte and wic are"),
    ],
)
def test_what_the_hub_lacks_is_one_line(source: str, message: str) -> None:
    with pytest.raises(DataError) as caught:
        read_labelled_texts(source)
    assert message in str(caught.value)
