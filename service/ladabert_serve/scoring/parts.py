"""The output, written in parts that an interrupted run leaves to the next one, and joined at the end."""

import csv
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ladabert_serve.errors import StartError
from ladabert_serve.scoring.rows import Row, arrow

JOB_FILE = "job.json"


class Parts:
    """The parts of one output file in a folder beside it, `OUT.parts`; each is written whole or not at all."""

    def __init__(self, out: Path, job: Mapping[str, Any]) -> None:
        self._out = out
        self._folder = out.with_name(out.name + ".parts")
        if out.exists():
            raise StartError(f"{out}: exists already; remove it, or choose another --output")
        self._folder.mkdir(exist_ok=True)
        path = self._folder / JOB_FILE
        text = json.dumps(job, indent=2, sort_keys=True)
        if path.exists() and path.read_text() != text:
            raise StartError(f"{self._folder}: holds parts of another job: other files, columns or models; remove it")
        path.write_text(text)

    @property
    def done(self) -> int:
        """How many parts an earlier run has left."""
        number = 0
        while self._path(number).exists():
            number += 1
        return number

    def write(self, number: int, rows: Sequence[Row]) -> None:
        """Write one part."""
        path = self._path(number)
        temporary = path.with_name("." + path.name)
        if self._out.suffix.lower() == ".parquet":
            pyarrow = arrow(self._out)
            table = pyarrow.Table.from_pylist(list(rows))
            pyarrow.parquet.write_table(table, temporary)
        elif self._out.suffix.lower() == ".jsonl":
            with temporary.open("w", encoding="utf-8") as file:
                file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        else:
            with temporary.open("w", encoding="utf-8", newline="") as file:
                writer = csv.DictWriter(file, list(rows[0]), restval="")
                if number == 0:
                    writer.writeheader()
                writer.writerows(rows)
        temporary.rename(path)

    def join(self) -> None:
        """Make the output of all parts, and remove them."""
        temporary = self._folder / ("." + self._out.name)
        paths = [self._path(number) for number in range(self.done)]
        if self._out.suffix.lower() == ".parquet":
            self._join_tables(paths, temporary)
        else:
            with temporary.open("wb") as out:
                for path in paths:
                    with path.open("rb") as part:
                        shutil.copyfileobj(part, out)
        temporary.replace(self._out)
        shutil.rmtree(self._folder)

    def _join_tables(self, paths: Sequence[Path], out: Path) -> None:
        pyarrow = arrow(self._out)
        schema = pyarrow.unify_schemas([pyarrow.parquet.read_schema(path) for path in paths])
        with pyarrow.parquet.ParquetWriter(out, schema) as writer:
            for path in paths:
                writer.write_table(pyarrow.parquet.read_table(path, schema=schema))

    def _path(self, number: int) -> Path:
        return self._folder / f"part-{number:06}{self._out.suffix.lower()}"
