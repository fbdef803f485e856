from pathlib import Path

import pytest

from ladabert_compress.data.labels import label_ids_of, label_order
from ladabert_compress.data.reading import Columns, read_labelled_texts
from ladabert_compress.data.texts import LabelledTexts
from ladabert_compress.errors import DataError


def write(folder: Path, name: str, text: str) -> str:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_a_quote_in_a_tsv_file_is_a_character(tmp_path: Path) -> None:
    source = write(tmp_path, "a.tsv", 'sentence\tlabel\n"so called\t1\nplain\t0\n')
    assert read_labelled_texts(source) == LabelledTexts(('"so called', "plain"), None, ("1", "0"))


def test_csv_and_jsonl_read_the_same_pairs(tmp_path: Path) -> None:
    csv = write(tmp_path, "a.csv", 'sentence1,sentence2,label\n"a, b",c,yes\n')
    jsonl = write(tmp_path, "a.jsonl", '{"sentence1": "a, b", "sentence2": "c", "label": "yes"}\n')
    assert read_labelled_texts(csv) == read_labelled_texts(jsonl) == LabelledTexts(("a, b",), ("c",), ("yes",))


def test_columns_can_be_named(tmp_path: Path) -> None:
    source = write(tmp_path, "a.csv", "id,review,stars\n7,fine,5\n")
    assert read_labelled_texts(source, Columns(text="review", label="stars")).labels == ("5",)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.tsv", "sentence\tlabel\nx\t1\ny\n", ":3: 1 fields, the header has 2"),
        ("a.csv", "sentence,label\nx,1\ny\n", ":3: 1 fields, the header has 2"),
        ("a.jsonl", '{"text": "x", "label": 1}\n{"text"\n', ":2: not JSON"),
        ("a.jsonl", '{"text": "\\ud800", "label": 1}\n', ":1: column 'text' has an unpaired surrogate"),
        ("a.jsonl", "[" * 100_000 + "\n", ":1: not JSON"),
        ("a.jsonl", '{"text": 3, "label": 1}\n', ":1: column 'text' is int, expected a text"),
        ("a.jsonl", '{"text": "x", "label": null}\n', ":1: column 'label' is None"),
        ("a.tsv", "sentence\tlabel\n", "no rows"),
        ("a.tsv", "body\tlabel\nx\t1\n", "name it with --text"),
        ("a.tsv", "text\tclass\nx\t1\n", "name it with --label"),
        ("a.parquet", "", "unknown ending"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_line(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(DataError) as caught:
        read_labelled_texts(write(tmp_path, name, text))
    assert message in str(caught.value)


def test_bytes_that_are_not_utf_8_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_bytes(b"sentence\tlabel\n\xff\t1\n")
    with pytest.raises(DataError, match="not UTF-8"):
        read_labelled_texts(str(tmp_path / "a.tsv"))


def test_a_missing_file_and_a_missing_column_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_labelled_texts(str(tmp_path / "none.tsv"))
    source = write(tmp_path, "a.tsv", "sentence\tlabel\nx\t1\n")
    with pytest.raises(DataError, match=r"no column 'review' \(--text\)"):
        read_labelled_texts(source, Columns(text="review"))


def test_labels_are_ordered_by_number_or_by_name() -> None:
    assert label_order(["10", "2", "1"]) == ("1", "2", "10")
    assert label_order(["b", "a"]) == ("a", "b")
    assert label_order(["1", "01", "0"]) == label_order(["01", "0", "1"]) == ("0", "01", "1")


def test_labels_fit_a_model_by_name_or_by_number() -> None:
    labels = ("negative", "positive")
    by_name = LabelledTexts(("good", "bad"), None, ("positive", "negative"))
    by_number = LabelledTexts(("good", "bad"), None, ("1", "0"))
    assert label_ids_of("f", by_name, labels) == label_ids_of("f", by_number, labels) == [1, 0]
    with pytest.raises(DataError, match="row 1: label 'maybe' is not one of negative, positive"):
        label_ids_of("f", LabelledTexts(("good",), None, ("maybe",)), labels)
