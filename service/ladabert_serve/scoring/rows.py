"""Rows of tables, read as a stream: CSV, JSONL and Parquet, by their endings."""

import csv
import itertools
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from ladabert_serve.errors import StartError

Row = dict[str, Any]

ENDINGS = (".csv", ".jsonl", ".parquet")


def find_files(patterns: Sequence[str]) -> list[Path]:
    """Return the files that the names and globs mean, in order, each once; raises StartError."""
    found: dict[Path, None] = {}
    for pattern in patterns:
        path = Path(pattern)
        paths = [path] if path.is_file() else sorted(Path(path.anchor).glob(str(path.relative_to(path.anchor))))
        if not paths:
            raise StartError(f"{pattern}: no such file")
        found.update(dict.fromkeys(paths))
    for path in found:
        check_ending(path)
    return list(found)


def check_ending(path: Path) -> None:
    """Raise StartError for a table that is neither CSV, JSONL nor Parquet."""
    if path.suffix.lower() not in ENDINGS:
        raise StartError(f"{path}: unknown ending {path.suffix!r}; use {', '.join(ENDINGS)}")
    if path.suffix.lower() == ".parquet":
        arrow(path)


def read_rows(files: Sequence[Path], columns: Sequence[str], added: Sequence[str] = ()) -> Iterator[Row]:
    """Yield the rows of all files, which have the same columns; raises StartError with file and line.

    They have at least `columns`, and none of those that are to be `added`.
    """
    readers: dict[str, Callable[[Path], Iterator[tuple[int, Row]]]] = {
        ".csv": _csv_rows,
        ".jsonl": _jsonl_rows,
        ".parquet": _parquet_rows,
    }
    names: Row = {}
    for path in files:
        for number, row in readers[path.suffix.lower()](path):
            missing = [column for column in columns if column not in row]
            if missing:
                raise StartError(
                    f"{path}:{number}: has no column {missing[0]!r}, only {', '.join(row)}; name it with --text-column "
                    "or --text-pair-column"
                )
            taken = [column for column in added if column in row]
            if taken:
                raise StartError(
                    f"{path}:{number}: has a column {taken[0]!r} already, which would be overwritten; choose another "
                    "name for the new ones with --prefix"
                )
            names = names or row
            if row.keys() != names.keys():
                raise StartError(
                    f"{path}:{number}: has the columns {', '.join(row)}, the first row has {', '.join(names)}"
                )
            yield {name: row[name] for name in names}


def in_chunks(rows: Iterator[Row], size: int) -> Iterator[list[Row]]:
    """Yield lists of `size` rows, the last one shorter."""
    while chunk := list(itertools.islice(rows, size)):
        yield chunk


def arrow(path: Path) -> ModuleType:
    """Return pyarrow's reader and writer of Parquet; raises StartError where it is not installed."""
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise StartError(f"{path}: Parquet needs pyarrow: pip install 'ladabert[parquet]'") from error
    module: ModuleType = pyarrow
    return module


def _csv_rows(path: Path) -> Iterator[tuple[int, Row]]:
    csv.field_size_limit(sys.maxsize)  # the module's own limit is 131,072 characters
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        try:
            header = next(reader, [])
            if len(set(header)) < len(header):
                raise StartError(f"{path}:1: names a column twice: {', '.join(header)}")
            for fields in reader:
                if not fields:
                    continue
                if len(fields) != len(header):
                    raise StartError(
                        f"{path}:{reader.line_num}: has {len(fields)} fields, the header has {len(header)}"
                    )
                yield reader.line_num, dict(zip(header, fields, strict=True))
        except (csv.Error, UnicodeDecodeError) as error:
            raise StartError(f"{path}:{reader.line_num + 1}: cannot be read: {error}") from error


def _jsonl_rows(path: Path) -> Iterator[tuple[int, Row]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                if b"\\u" in line:  # an escape can be half of a surrogate pair, which is no text
                    json.dumps(row, ensure_ascii=False).encode()
            except (ValueError, RecursionError) as error:
                raise StartError(f"{path}:{number}: not JSON: {error}") from error
            if not isinstance(row, dict):
                raise StartError(f"{path}:{number}: not a JSON object")
            yield number, row


def _parquet_rows(path: Path) -> Iterator[tuple[int, Row]]:
    pyarrow = arrow(path)
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches():
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except (pyarrow.ArrowException, OSError) as error:
        raise StartError(f"{path}: cannot be read: {error}") from error
