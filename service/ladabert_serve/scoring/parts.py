"""The output, written in parts that an interrupted run leaves to the next one, and joined at the end."""

import contextlib
import csv
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ladabert_serve.errors import StartError
from ladabert_serve.scoring.rows import Row, arrow

JOB_FILE = "job.json"


class Parts:
    """The parts of one output file in a folder beside it, `OUT.parts`; each is written whole or not at all."""

    def __init__(self, out: Path) -> None:
        self._out = out
        self._folder = out.with_name(out.name + ".parts")
        self._is_parquet = out.suffix.lower() == ".parquet"

    @contextlib.contextmanager
    def open(self, job: Mapping[str, Any]) -> Iterator[None]:
        """Keep the folder to this run; raises StartError if another one has it, or if its parts are of another job."""
        if self._out.exists():
            raise StartError(f"{self._out}: exists already; remove it, or choose another --output")
        with self._writing():
            self._folder.mkdir(exist_ok=True)
            lock = os.open(self._folder, os.O_RDONLY)
        try:
            self._claim(lock, job)
            yield
        finally:
            os.close(lock)

    def _claim(self, lock: int, job: Mapping[str, Any]) -> None:
        path = self._folder / JOB_FILE
        text = json.dumps(job, indent=2, sort_keys=True)
        with self._writing():
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise StartError(f"{self._folder}: another run is writing there") from error
            if not path.exists():
                temporary = path.with_name("." + path.name)
                temporary.write_text(text)
                temporary.rename(path)
            if path.read_text() != text:
                raise StartError(
                    f"{self._folder}: holds parts of another job: other files, columns or models; remove it"
                )

    @property
    def done(self) -> int:
        """How many parts an earlier run has left."""
        number = 0
        while self._path(number).exists():
            number += 1
        return number

    def write(self, number: int, rows: Sequence[Row]) -> None:
        """Write one part; raises StartError."""
        path = self._path(number)
        temporary = path.with_name("." + path.name)
        with self._writing():
            if self._is_parquet:
                pyarrow = arrow(self._out)
                pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), temporary)
            else:
                with temporary.open("w", encoding="utf-8", newline="") as file:
                    if self._out.suffix.lower() == ".jsonl":
                        file.writelines(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows)
                    else:
                        writer = csv.DictWriter(file, list(rows[0]))
                        if number == 0:
                            writer.writeheader()
                        writer.writerows(rows)
            temporary.rename(path)

    def join(self) -> None:
        """Make the output of all parts, and remove them; raises StartError."""
        temporary = self._folder / ("." + self._out.name)
        paths = [self._path(number) for number in range(self.done)]
        with self._writing():
            if self._is_parquet:
                self._join_tables(paths, temporary)
            else:
                with temporary.open("wb") as out:
                    for path in paths:
                        with path.open("rb") as part:
                            shutil.copyfileobj(part, out)
            temporary.replace(self._out)
            shutil.rmtree(self._folder)

    def _join_tables(self, paths: Sequence[Path], out: Path) -> None:
        """Join tables whose columns may be all empty in one part, or whole numbers in one and fractions in another."""
        pyarrow = arrow(self._out)
        schemas = [pyarrow.parquet.read_schema(path) for path in paths]
        schema = pyarrow.unify_schemas(schemas, promote_options="permissive")
        with pyarrow.parquet.ParquetWriter(out, schema) as writer:
            for path in paths:
                writer.write_table(pyarrow.parquet.read_table(path).cast(schema))

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Raise StartError for what the disk or Parquet refuses; the parts that are whole stay."""
        refused: tuple[type[Exception], ...] = (OSError,)
        if self._is_parquet:
            refused += (arrow(self._out).ArrowException,)
        try:
            yield
        except refused as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error).splitlines()[0]
            raise StartError(
                f"{self._out}: cannot be written: {reason}; what is scored stays in {self._folder}"
            ) from error

    def _path(self, number: int) -> Path:
        return self._folder / f"part-{number:06}{self._out.suffix.lower()}"
