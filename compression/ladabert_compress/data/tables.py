"""Rows of a file as dictionaries, each with the line that it begins on.

The standard library reads them: faster readers guess types (``01`` becomes 1, ``NA`` nothing) and name no line.
"""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from ladabert_compress.errors import DataError

Row = Mapping[str, Any]
DELIMITERS = (",", ";", "\t", "|")
SAMPLE_RECORDS, SAMPLE_CHARACTERS = 50, 1 << 20  # of a CSV file, to find its delimiter
SEPARATOR_LINE = re.compile(r'"?sep=(.)"?\r?\n')  # what Excel writes before the header to name its delimiter
UTF_16_MARKS = (b"\xff\xfe", b"\xfe\xff")
CURE = "save it as UTF-8 (Excel: 'CSV UTF-8'; elsewhere: iconv -f WINDOWS-1252 -t UTF-8 OLD > NEW)"


def file_rows(path: Path) -> Iterator[tuple[int, Row]]:
    """The rows of a table by its ending; lines without any content are passed over.

    ``.csv`` has quotes, and its delimiter is found; ``.tsv`` and ``.txt`` are tab-separated without quoting, as GLUE's
    files are. The first line names the columns.

    Raises:
        DataError: with the line of what cannot be read.
    """
    readers = {".tsv": _tsv_rows, ".txt": _tsv_rows, ".csv": _csv_rows, ".jsonl": _jsonl_rows, ".ndjson": _jsonl_rows}
    ending = path.suffix.lower()
    if ending not in (*readers, ".parquet"):
        raise DataError(
            f"{path}: unknown ending {path.suffix!r}; use .csv, .tsv, .jsonl, .parquet or hub:NAME "
            "(a spreadsheet: save it as 'CSV UTF-8')"
        )
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    return _parquet_rows(path) if ending == ".parquet" else readers[ending](path, _decode(path))


def text_lines(path: Path) -> Iterator[tuple[int, Row]]:
    """The lines of a text file as rows with one column, ``text``.

    Raises:
        DataError: there is no such file, or a line is not UTF-8.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    for line_number, line in enumerate(_lines(_decode(path)), start=1):
        if text := line.strip():
            yield line_number, {"text": text}


def _decode(path: Path) -> str:
    content = path.read_bytes()
    if content.startswith(UTF_16_MARKS):
        raise DataError(f"{path}:1: is UTF-16; {CURE}")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line_number = content.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}:{line_number}: byte 0x{content[error.start]:02x} is not UTF-8; {CURE}") from error


def _lines(content: str) -> Iterator[str]:
    for line in io.StringIO(content, newline="\n"):
        yield line.removesuffix("\n").removesuffix("\r")


def _tsv_rows(path: Path, content: str) -> Iterator[tuple[int, Row]]:
    lines = _lines(content)
    header = _header(path, next(lines, "").split("\t"))
    for line_number, line in enumerate(lines, start=2):
        fields = line.split("\t")
        if any(fields):
            yield line_number, _named(path, line_number, header, fields)


def _csv_rows(path: Path, content: str) -> Iterator[tuple[int, Row]]:
    csv.field_size_limit(sys.maxsize)  # the module's own limit is 131,072 characters
    separator = SEPARATOR_LINE.match(content)
    skipped = 0 if separator is None else 1
    content = content if separator is None else content[separator.end() :]
    delimiter = _delimiter(content) if separator is None else separator[1]
    reader = csv.reader(io.StringIO(content, newline=""), delimiter=delimiter, strict=True)
    header: list[str] = []
    line_number = skipped + 1
    try:
        for fields in reader:
            if not header:
                header = _header(path, fields)
            elif any(fields):
                yield line_number, _named(path, line_number, header, fields)
            line_number = skipped + reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{path}:{line_number}: {error}; a quote within quotes is written twice") from error


def _delimiter(content: str) -> str:
    """The delimiter that divides the header and at which most of the first records have as many fields as it."""

    def fitting(delimiter: str) -> tuple[bool, int, int]:
        reader = csv.reader(io.StringIO(content[:SAMPLE_CHARACTERS], newline=""), delimiter=delimiter)
        counts = [len(fields) for fields in islice(reader, SAMPLE_RECORDS) if fields] or [0]
        return counts[0] > 1, counts.count(counts[0]), counts[0]

    return max(DELIMITERS, key=fitting)  # the first of equals


def _header(path: Path, names: list[str]) -> list[str]:
    names = [name.strip() for name in names]
    for name in names:
        if name and names.count(name) > 1:
            raise DataError(f"{path}:1: two columns are named {name!r}; give each its own name")
    return names


def _named(path: Path, line_number: int, header: list[str], fields: list[str]) -> Row:
    if len(fields) != len(header):
        raise DataError(f"{path}:{line_number}: {len(fields)} fields, the header has {len(header)}")
    return dict(zip(header, fields, strict=True))


def _jsonl_rows(path: Path, content: str) -> Iterator[tuple[int, Row]]:
    for line_number, line in enumerate(_lines(content), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}:{line_number}: not JSON: {error}") from error
        if not isinstance(row, dict):
            raise DataError(f"{path}:{line_number}: expected an object, found {type(row).__name__}")
        yield line_number, row


def _parquet_rows(path: Path) -> Iterator[tuple[int, Row]]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise DataError(f"{path}: Parquet needs the extra `parquet`: pip install 'ladabert[parquet]'") from error
    try:
        with parquet.ParquetFile(path) as file:
            rows = (row for batch in file.iter_batches() for row in batch.to_pylist())
            yield from enumerate(rows, start=1)
    except ArrowException as error:
        raise DataError(f"{path}: cannot be read as Parquet: {error}") from error
