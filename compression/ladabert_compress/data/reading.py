"""Reads labelled texts from TSV, CSV, JSONL or a hub data set."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ladabert_compress.data.texts import LABEL_SEPARATOR, LabelledTexts, Texts
from ladabert_compress.errors import DataError

# The names that GLUE and common exports give their columns, tried in this order.
TEXT_COLUMNS = ("sentence", "text", "sentence1", "question1", "premise", "question")
PAIR_COLUMNS = {
    "sentence1": "sentence2",
    "question1": "question2",
    "premise": "hypothesis",
    "question": "sentence",
    "text": "text_pair",
}
LABEL_COLUMN = "label"


@dataclass(frozen=True)
class Columns:
    """The columns to read; ``None`` means: find it by GLUE's names."""

    text: str | None = None
    text_pair: str | None = None
    label: str | None = None


def read_labelled_texts(source: str, columns: Columns = Columns(), *, split: str = "train") -> LabelledTexts:
    """Reads a ``.tsv`` (no quoting), ``.csv`` or ``.jsonl`` file, or ``hub:NAME[/CONFIG]``.

    Args:
        source: path or hub name.
        columns: the columns to read, where GLUE's names do not fit.
        split: the split of a hub data set; files have none.

    Raises:
        DataError: with the file and the line number of what cannot be used.
    """
    texts: list[str] = []
    pairs: list[str] = []
    labels: list[str] = []
    places: list[str] = []
    text_column = pair_column = label_column = ""
    for line_number, row in _rows(source, split):
        if not text_column:
            text_column, pair_column = _choose_text_columns(source, tuple(row), columns)
            label_column = _choose_label_column(source, tuple(row), columns)
        texts.append(_text(source, line_number, row, text_column))
        if pair_column:
            pairs.append(_text(source, line_number, row, pair_column))
        labels.append(_label(source, line_number, row, label_column))
        places.append(f"{source}:{line_number}")
    if not texts:
        raise DataError(f"{source}: no rows; expected a header line and at least one row")
    return LabelledTexts(tuple(texts), tuple(pairs) if pair_column else None, tuple(labels), places=tuple(places))


def read_texts(source: str, columns: Columns = Columns(), *, split: str = "train") -> Texts:
    """Reads texts without labels: a ``.txt`` file with one text a line, or what :func:`read_labelled_texts` reads.

    Raises:
        DataError: with the file and the line number of what cannot be used.
    """
    texts: list[str] = []
    pairs: list[str] = []
    places: list[str] = []
    text_column = pair_column = ""
    for line_number, row in _rows(source, split):
        if not text_column:
            text_column, pair_column = _choose_text_columns(source, tuple(row), columns)
        texts.append(_text(source, line_number, row, text_column))
        if pair_column:
            pairs.append(_text(source, line_number, row, pair_column))
        places.append(f"{source}:{line_number}")
    if not texts:
        raise DataError(f"{source}: no rows; expected at least one text")
    return Texts(tuple(texts), tuple(pairs) if pair_column else None, places=tuple(places))


def _rows(source: str, split: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    return _hub_rows(source.removeprefix("hub:"), split) if source.startswith("hub:") else _file_rows(Path(source))


def _file_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    readers = {".tsv": _tsv_rows, ".csv": _csv_rows, ".jsonl": _jsonl_rows, ".txt": _text_lines}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{path}: unknown ending {path.suffix!r}; use .tsv, .csv, .jsonl, .txt or hub:NAME")
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        yield from reader(path)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 ({error.reason} at byte {error.start}); convert the file") from error


def _tsv_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    with path.open(encoding="utf-8", newline="\n") as file:
        header = file.readline().rstrip("\r\n").split("\t")
        for line_number, line in enumerate(file, start=2):
            fields = line.rstrip("\r\n").split("\t")
            if len(fields) != len(header):
                raise DataError(f"{path}:{line_number}: {len(fields)} fields, the header has {len(header)}")
            yield line_number, dict(zip(header, fields, strict=True))


def _csv_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.reader(file, strict=True)
        try:
            header = next(reader, [])
            for fields in reader:
                if len(fields) != len(header):
                    raise DataError(f"{path}:{reader.line_num}: {len(fields)} fields, the header has {len(header)}")
                yield reader.line_num, dict(zip(header, fields, strict=True))
        except csv.Error as error:
            raise DataError(f"{path}:{reader.line_num}: {error}") from error


def _jsonl_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    with path.open(encoding="utf-8") as file:
        for line_number, line in enumerate(file, start=1):
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise DataError(f"{path}:{line_number}: not JSON: {error}") from error
            if not isinstance(row, dict):
                raise DataError(f"{path}:{line_number}: expected an object, found {type(row).__name__}")
            yield line_number, row


def _text_lines(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    with path.open(encoding="utf-8", newline="\n") as file:
        for line_number, line in enumerate(file, start=1):
            if text := line.strip():
                yield line_number, {"text": text}


def _hub_rows(name: str, split: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    try:
        import datasets
    except ImportError as error:
        raise DataError("hub: data needs the extra `hub`: pip install 'ladabert[hub]'") from error
    # `glue/sst2` is a data set and its configuration, `stanfordnlp/sst2` an owner and a data set: only
    # the hub knows which, so the configuration is what follows the last slash if the whole is unknown.
    try:
        rows = datasets.load_dataset(name, split=split)
    except (FileNotFoundError, ValueError):
        owner, _, configuration = name.rpartition("/")
        if not owner:
            raise DataError(f"hub:{name}: no such data set") from None
        rows = datasets.load_dataset(owner, configuration, split=split)
    label_names = getattr(rows.features.get(LABEL_COLUMN), "names", None)
    for row_number, row in enumerate(rows, start=1):
        yield row_number, {**row, LABEL_COLUMN: label_names[row[LABEL_COLUMN]]} if label_names else row


def _choose_text_columns(source: str, present: tuple[str, ...], columns: Columns) -> tuple[str, str]:
    """The text and pair (empty for none) columns of this source."""
    _check_present(source, present, {"--text": columns.text, "--text-pair": columns.text_pair})
    text = columns.text or next((name for name in TEXT_COLUMNS if name in present), "")
    if not text:
        raise DataError(f"{source}: no text column among {', '.join(present)}; name it with --text")
    pair = columns.text_pair or ("" if columns.text else PAIR_COLUMNS.get(text, ""))
    return text, pair if pair in present else ""


def _choose_label_column(source: str, present: tuple[str, ...], columns: Columns) -> str:
    _check_present(source, present, {"--label": columns.label})
    label = columns.label or LABEL_COLUMN
    if label not in present:
        raise DataError(f"{source}: no label column among {', '.join(present)}; name it with --label")
    return label


def _check_present(source: str, present: tuple[str, ...], named: Mapping[str, str | None]) -> None:
    for option, name in named.items():
        if name is not None and name not in present:
            raise DataError(f"{source}: no column {name!r} ({option}); it has {', '.join(present)}")


def _text(source: str, line_number: int, row: Mapping[str, Any], column: str) -> str:
    value = row.get(column)
    if not isinstance(value, str):
        raise DataError(f"{source}:{line_number}: column {column!r} is {type(value).__name__}, expected a text")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{source}:{line_number}: column {column!r} has an unpaired surrogate") from error
    return value


def _label(source: str, line_number: int, row: Mapping[str, Any], column: str) -> str:
    value = row.get(column)
    labels = value if isinstance(value, list) else [value]
    for label in labels:
        if isinstance(label, bool) or not isinstance(label, str | int):
            raise DataError(f"{source}:{line_number}: column {column!r} is {value!r}, expected a string or an integer")
    return LABEL_SEPARATOR.join(map(str, labels))
