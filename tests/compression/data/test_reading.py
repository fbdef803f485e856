import re
from pathlib import Path

import pytest

from ladabert_compress.data.columns import Columns
from ladabert_compress.data.labels import label_ids_of, label_order, scores_of
from ladabert_compress.data.reading import read_labelled_texts, read_texts
from ladabert_compress.data.texts import LabelledTexts, Texts
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
        ("a.jsonl", '{"text": "x", "label": NaN}\n', ":1: column 'label' is nan"),
        ("a.csv", 'text,label\n"open,1\nx,0\n', ":2: unexpected end of data; a quote within quotes is written twice"),
        ("a.csv", "text,label,text\nx,1,y\n", ":1: two columns are named 'text'"),
        ("a.jsonl", '{"text": "x", "label": null}\n', ":1: column 'label' is None"),
        ("a.tsv", "sentence\tlabel\n", "no rows"),
        ("a.tsv", "memo\tlabel\nx\t1\n", "name it with --text"),
        ("a.tsv", "text\tclass_of\nx\t1\n", "name it with --label"),
        ("a.parquet", "", ": cannot be read as Parquet"),
        (
            "a.xlsx",
            "",
            "unknown ending '.xlsx'; use .csv, .tsv, .jsonl, .parquet or hub:NAME (a spreadsheet: save it as",
        ),
    ],
)
def test_what_cannot_be_read_is_named_with_its_line(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(DataError) as caught:
        read_labelled_texts(write(tmp_path, name, text))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("text\tlabel\nfine\t1\ncafé\t0\n".encode("latin-1"), ":3: byte 0xe9 is not UTF-8; save it as UTF-8 (Excel"),
        ("text\tlabel\nfine\t1\n".encode("utf-16"), ":1: is UTF-16; save it as UTF-8 (Excel"),
    ],
)
def test_bytes_that_are_not_utf_8_are_refused_with_their_line_and_the_cure(
    tmp_path: Path, content: bytes, message: str
) -> None:
    (tmp_path / "a.tsv").write_bytes(content)
    with pytest.raises(DataError, match=re.escape(message)):
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


def test_scores_are_read_as_numbers() -> None:
    assert scores_of("f", LabelledTexts(("a", "b"), ("c", "d"), ("3.8", "0"))) == [3.8, 0.0]
    for label in ("nan", "inf", "much", ""):
        with pytest.raises(DataError, match=f"f: row 1: label '{label}' is no finite number"):
            scores_of("f", LabelledTexts(("a",), None, (label,)))


def test_spaces_around_a_label_are_no_part_of_it(tmp_path: Path) -> None:
    texts = read_labelled_texts(write(tmp_path, "a.csv", "text,label\nx,neg \ny,neg\nz,pos\n"))
    assert texts.labels == ("neg", "neg", "pos")
    assert "warning: labels are read without the spaces around them, such as 'neg '" in texts.notes


def test_rows_whose_label_is_missing_are_left_out_and_counted(tmp_path: Path) -> None:
    texts = read_labelled_texts(write(tmp_path, "a.csv", "text,label\na,0\nb,-1\nc,2\nd,-\ne,1\nf,-1\n"))
    assert texts == LabelledTexts(("a", "c", "e"), None, ("0", "2", "1"))
    assert texts.place(1).endswith("a.csv:4")
    assert "3 rows without a label are left out (2 with -1, 1 with -)" in texts.notes


@pytest.mark.parametrize(
    ("labels", "message"),
    [(("-1", "-1"), "every label is -1: they are hidden"), (("-1", "0", "1"), "label -1 stands beside 0 and 1")],
)
def test_minus_one_is_not_guessed_at(tmp_path: Path, labels: tuple[str, ...], message: str) -> None:
    source = write(tmp_path, "a.csv", "text,label\n" + "".join(f"x,{label}\n" for label in labels))
    with pytest.raises(DataError, match=message):
        read_labelled_texts(source)


def test_a_text_file_has_a_text_a_line_whatever_the_line_holds(tmp_path: Path) -> None:
    source = write(tmp_path, "a.txt", "\ufefftext, label\r\n\n  one\ttwo \nthree")
    assert read_texts(source) == Texts(("text, label", "one\ttwo", "three"), None)


def test_the_labels_of_a_table_do_not_matter_where_none_are_needed(tmp_path: Path) -> None:
    source = write(tmp_path, "a.csv", "sentence1,sentence2,label\na,b,-1\n")
    assert read_texts(source) == Texts(("a",), ("b",))
    with pytest.raises(DataError, match="no rows; expected at least one text"):
        read_texts(write(tmp_path, "empty.txt", "\n\n"))
