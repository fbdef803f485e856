"""The figures of one run, in the one format of benchmarks/results: written and read here alone.

{"benchmark": NAME, "origin": where the figures come from, "settings": what the run was asked for and holds for all of
it, "tables": {TABLE: [a row of named figures, …]}}
"""

import datetime
import json
import shlex
import statistics
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from ladabert_compress.measure.machine import machine_name
from ladabert_serve.cores import available_cores

Row = dict[str, Any]

REPOSITORY = Path(__file__).parents[2]
FOLDER = REPOSITORY / "benchmarks" / "results"
DIGITS = 6  # significant ones that are kept of a figure
KEYS = ("benchmark", "origin", "settings", "tables")


@dataclass
class Results:
    """What a run found: tables of rows; a row is flat but for lists and dictionaries that belong to one figure."""

    benchmark: str
    origin: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    tables: dict[str, list[Row]] = field(default_factory=dict)

    def add(self, table: str, **figures: Any) -> Row:
        """Append a row, its figures rounded, and return it."""
        row: Row = rounded(figures)
        self.tables.setdefault(table, []).append(row)
        return row

    def rows(self, table: str, **wanted: Any) -> list[Row]:
        """Return the rows that hold these values, in order."""
        found = self.tables.get(table, [])
        return [row for row in found if all(row[name] == value for name, value in wanted.items())]

    def values(self, table: str, column: str, **wanted: Any) -> list[Any]:
        """Return one figure of each of these rows."""
        return [row[column] for row in self.rows(table, **wanted)]

    def median(self, table: str, column: str, **wanted: Any) -> float | None:
        """Return the median of a figure over these rows, or None where there are none."""
        values = self.values(table, column, **wanted)
        return statistics.median(values) if values else None

    def names(self, table: str, column: str) -> list[Any]:
        """Return the different values of a column, in the order of their first rows."""
        return list(dict.fromkeys(self.values(table, column)))

    def told(self) -> str:
        """Return the command, commit and date as a page says them."""
        return f"`{self.origin['command']}`, commit {self.origin['commit']}, {self.origin['date']}"

    def versions(self) -> str:
        """Return the packages' versions as a page says them."""
        return ", ".join(f"{name} {version}" for name, version in self.origin["versions"].items())

    def save(self, path: Path) -> None:
        """Write the results as JSON, a row a line."""
        head = {"benchmark": self.benchmark, "origin": self.origin, "settings": self.settings}
        parts = [f"  {_json(name)}: {_json(value)}" for name, value in head.items()]
        tables = [f"    {_json(name)}: {_lines(rows)}" for name, rows in self.tables.items()]
        parts.append('  "tables": {\n' + ",\n".join(tables) + "\n  }")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{\n" + ",\n".join(parts) + "\n}\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> "Results":
        """Read what `save` wrote; raises ValueError for a file of another format."""
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict) or tuple(found) != KEYS:
            raise ValueError(f"{path}: does not hold {', '.join(KEYS)}: no results of a benchmark")
        return cls(**found)


def origin(*packages: str) -> dict[str, Any]:
    """Return where figures measured now come from: command, commit, date, machine, cores, versions of packages."""
    arguments = [Path(argument).name if argument.startswith("/") else argument for argument in sys.argv[1:]]
    return {
        "command": shlex.join(["python", "-m", "benchmarks", *arguments]),
        "commit": commit(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": machine_name(),
        "cores": available_cores(),
        "versions": {name: metadata.version(name) for name in packages if any(metadata.distributions(name=name))},
    }


def commit() -> str:
    """Return the commit of the working tree, and `-dirty` where it holds more."""
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def rounded(value: Any) -> Any:
    """Return a value with every float in it rounded to `DIGITS` significant digits."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, dict):
        return {name: rounded(entry) for name, entry in value.items()}
    return [rounded(entry) for entry in value] if isinstance(value, list | tuple) else value


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _lines(rows: Iterable[Row]) -> str:
    return "[\n" + ",\n".join(f"      {_json(row)}" for row in rows) + "\n    ]"
