"""Reads texts and labels from CSV, TSV, JSONL, Parquet or a hub data set."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from ladabert_compress.data.columns import BY_NAME, Chosen, Columns, choose_columns
from ladabert_compress.data.hub import hub_rows
from ladabert_compress.data.tables import Row, file_rows, text_lines
from ladabert_compress.data.texts import LABEL_SEPARATOR, LabelledTexts, Texts
from ladabert_compress.errors import DataError

HUB = "hub:"
MISSING = ("-1", "-")  # SNLI's rows without agreement, and test sets with hidden labels
NOT_MISSING = {"0", "1"}  # beside these, -1 is as likely a class (a negative opinion)


def read_labelled_texts(source: str, columns: Columns = BY_NAME, *, training: bool = True) -> LabelledTexts:
    """Reads a ``.csv``, ``.tsv``, ``.jsonl`` or ``.parquet`` file, or ``hub:NAME[/CONFIG][:SPLIT]``.

    Rows with the label -1 or ``-`` are left out, and labels lose the spaces around them; ``notes`` counts both.

    Args:
        source: path or hub name.
        columns: the columns to read, where common names do not fit.
        training: whether the rows are to train on, which decides the split of a hub data set.

    Raises:
        DataError: with the file and the line number of what cannot be used.
    """
    texts, chosen, values = _read(source, _rows(source, training), columns, labelled=True)
    labels = [value.strip() for value in values]
    notes = [str(chosen)]
    if trimmed := sorted({value for value, label in zip(values, labels, strict=True) if value != label}):
        notes.append(f"warning: labels are read without the spaces around them, such as {trimmed[0]!r}")
    kept = _rows_with_labels(source, labels)
    if len(kept) < len(texts):
        missing = Counter(label for label in labels if label in MISSING)
        counted = ", ".join(f"{count:,} with {label}" for label, count in missing.items())
        notes.append(f"{len(texts) - len(kept):,} rows without a label are left out ({counted})")
    whole = LabelledTexts(texts.texts, texts.pairs, tuple(labels), places=texts.places, notes=tuple(notes))
    return whole.select(kept) if len(kept) < len(texts) else whole


def read_texts(source: str, columns: Columns = BY_NAME) -> Texts:
    """Reads texts whose labels, if there are any, do not matter: a ``.txt`` file with one text a line, or any table.

    Raises:
        DataError: with the file and the line number of what cannot be used.
    """
    lines = not source.startswith(HUB) and Path(source).suffix.lower() == ".txt"
    rows = text_lines(Path(source)) if lines else _rows(source, training=True)
    return _read(source, rows, BY_NAME if lines else columns, labelled=False)[0]


def _rows(source: str, training: bool) -> Iterator[tuple[int, Row]]:
    return hub_rows(source.removeprefix(HUB), training=training) if source.startswith(HUB) else file_rows(Path(source))


def _read(
    source: str, rows: Iterator[tuple[int, Row]], columns: Columns, *, labelled: bool
) -> tuple[Texts, Chosen, list[str]]:
    """The texts, the columns that they were read from, and their labels as they stand there."""
    chosen: Chosen | None = None
    texts: list[str] = []
    pairs: list[str] = []
    labels: list[str] = []
    places: list[str] = []
    for line_number, row in rows:
        place = f"{source}:{line_number}"
        if chosen is None:
            chosen = choose_columns(source, tuple(row), columns, labelled=labelled)
        texts.append(_text(place, row, chosen.text))
        if chosen.text_pair is not None:
            pairs.append(_text(place, row, chosen.text_pair))
        if chosen.label is not None:
            labels.append(_label(place, row, chosen.label))
        places.append(place)
    if chosen is None:
        expected = "a header line and at least one row" if labelled else "at least one text"
        raise DataError(f"{source}: no rows; expected {expected}")
    second = None if chosen.text_pair is None else tuple(pairs)
    return Texts(tuple(texts), second, places=tuple(places), notes=(str(chosen),)), chosen, labels


def _rows_with_labels(source: str, labels: Sequence[str]) -> list[int]:
    present = set(labels)
    known = present - set(MISSING)
    if not known:
        raise DataError(f"{source}: every label is {labels[0]}: they are hidden, as in a test set; name other rows")
    if "-1" in present and known <= NOT_MISSING:
        raise DataError(
            f"{source}: label -1 stands beside {' and '.join(sorted(known))}: write a word for it if it is a class, "
            "delete its rows if it means no label"
        )
    return [row for row, label in enumerate(labels) if label not in MISSING]


def _text(place: str, row: Row, column: str) -> str:
    value = row.get(column)
    if not isinstance(value, str):
        raise DataError(f"{place}: column {column!r} is {type(value).__name__}, expected a text")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{place}: column {column!r} has an unpaired surrogate") from error
    return value


def _label(place: str, row: Row, column: str) -> str:
    value = row.get(column)
    labels = value if isinstance(value, list) else [value]
    for label in labels:
        if not isinstance(label, str | int | float) or (isinstance(label, float) and not math.isfinite(label)):
            raise DataError(f"{place}: column {column!r} is {value!r}, expected a string or a number")
    return LABEL_SEPARATOR.join(str(label).lower() if isinstance(label, bool) else str(label) for label in labels)
