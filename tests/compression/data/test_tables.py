"""Files as spreadsheets, warehouses and scripts write them."""

from __future__ import annotations

import csv
import io
import sys
from pathlib import Path

import pyarrow
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from ladabert_compress.data.reading import read_labelled_texts
from ladabert_compress.data.tables import file_rows
from ladabert_compress.data.texts import LabelledTexts
from ladabert_compress.errors import DataError

EXPECTED = LabelledTexts(("schön; gut", "zwei\nZeilen", "kalt"), None, ("ja", "nein", "nein"))
FIELDS = st.text(st.characters(codec="utf-8"), min_size=1)


@pytest.mark.parametrize(
    "content",
    [
        '\ufeffText;Label\r\n"schön; gut";ja\r\n"zwei\nZeilen";nein\r\nkalt;nein\r\n\r\n',  # as Excel writes it
        'sep=;\r\nText;Label\r\n"schön; gut";ja\r\n"zwei\nZeilen";nein\r\nkalt;nein\r\n;\r\n',
        'text,label\n"schön; gut",ja\n"zwei\nZeilen",nein\nkalt,nein',
        'text\tlabel\n"schön; gut"\tja\n"zwei\nZeilen"\tnein\nkalt\tnein\n\n\n',
        'text|label\nschön; gut|ja\n"zwei\nZeilen"|nein\nkalt|nein\n',
    ],
)
def test_delimiter_byte_order_mark_line_ends_and_blank_lines_do_not_matter(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.csv").write_bytes(content.encode())
    assert read_labelled_texts(str(tmp_path / "a.csv")) == EXPECTED


def test_a_row_is_known_by_the_line_that_it_begins_on(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('sep=,\ntext,label\n"one\ntwo",1\nthree,2\n', encoding="utf-8")
    assert [line for line, _ in file_rows(tmp_path / "a.csv")] == [3, 5]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.tuples(FIELDS, FIELDS, FIELDS), min_size=1, max_size=8),
    delimiter=st.sampled_from(",;\t|"),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
    line_end=st.sampled_from(["\n", "\r\n"]),
    mark=st.sampled_from(["", "\ufeff"]),
)
def test_what_the_csv_module_writes_in_any_dialect_is_read_the_same(
    tmp_path: Path, rows: list[tuple[str, ...]], delimiter: str, quoting: int, line_end: str, mark: str
) -> None:
    # Python's writer before 3.13 quotes no lone carriage return, and no reader can tell it from the end of a line then.
    assume(
        quoting != csv.QUOTE_MINIMAL or line_end == "\r\n" or not any("\r" in field for row in rows for field in row)
    )
    written = io.StringIO()
    header = ("text", "note", "label")
    csv.writer(written, delimiter=delimiter, quoting=quoting, lineterminator=line_end).writerows([header, *rows])  # type: ignore[arg-type]
    (tmp_path / "a.csv").write_bytes((mark + written.getvalue()).encode())
    assert [tuple(row.values()) for _, row in file_rows(tmp_path / "a.csv")] == rows


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_a_field_may_be_as_long_as_memory_allows(tmp_path: Path, name: str) -> None:
    delimiter = "," if name == "a.csv" else "\t"
    (tmp_path / name).write_text(f"text{delimiter}label\n{'x' * 200_000}{delimiter}1\n", encoding="utf-8")
    assert len(read_labelled_texts(str(tmp_path / name)).texts[0]) == 200_000


def test_parquet_is_read_with_its_extra_and_named_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = pyarrow.table({"text": ["good", "bad"], "label": [1, 0], "id": [7, 8]})
    parquet.write_table(table, tmp_path / "a.parquet", row_group_size=1)
    assert read_labelled_texts(str(tmp_path / "a.parquet")) == LabelledTexts(("good", "bad"), None, ("1", "0"))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError, match=r"needs the extra `parquet`: pip install 'ladabert\[parquet\]'"):
        read_labelled_texts(str(tmp_path / "a.parquet"))
