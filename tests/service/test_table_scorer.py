"""Claims about scoring tables: the answers of `score`, and on Ray Data the same from several processes."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from ladabert_serve.errors import StartError
from ladabert_serve.scoring.score import Job, score
from ladabert_serve.scoring.tables import TableScorer
from ladabert_serve.settings import Settings
from tests.service.ray_environment import PATIENCE_S, ray_environment

ROWS = pyarrow.table({"id": [1, 2, 3, 4], "text": ["a good film", None, "bad", ""]})
MANY = pyarrow.table({"id": list(range(500)), "text": [f"a good film {'very ' * (row % 7)}bad" for row in range(500)]})
# What docs/how-to/score.md shows, in a process of its own: importing Ray warns, and starts threads that stay.
ON_RAY = """
import sys
import ray
from ladabert_serve.scoring.tables import TableScorer

source, models, out = sys.argv[1:]
ray.init(num_cpus=2, include_dashboard=False)
rows = ray.data.read_parquet(source)
labelled = rows.map_batches(
    TableScorer,
    fn_constructor_kwargs={"models": ["alpha"], "settings": {"models": models}},
    batch_format="pyarrow",
    batch_size=100,
    num_cpus=0.5,
    compute=ray.data.ActorPoolStrategy(size=2),
)
labelled.write_parquet(out)
"""


def scored(rows: pyarrow.Table, models: Path, folder: Path, names: list[str]) -> pyarrow.Table:
    """Return what the command makes of the rows."""
    pyarrow.parquet.write_table(rows, folder / "rows.parquet")
    score(Job([str(folder / "rows.parquet")], folder / "out.parquet", names), Settings(models=models))
    return pyarrow.parquet.read_table(folder / "out.parquet")


def as_rows(table: pyarrow.Table) -> list[dict[str, Any]]:
    """Return the rows by id, their scores rounded to what a batch may change."""
    rows = [{**row, "score": row["score"] and round(row["score"], 5)} for row in table.to_pylist()]
    return sorted(rows, key=lambda row: int(row["id"]))


def test_a_table_gets_the_columns_that_the_command_adds(models: Path, tmp_path: Path) -> None:
    table = TableScorer(["alpha"], {"models": models})(ROWS)
    assert table.column_names == ["id", "text", "label", "score"]
    assert as_rows(table) == as_rows(scored(ROWS, models, tmp_path, ["alpha"]))
    assert table["label"].null_count == 2


def test_a_table_without_any_text_keeps_the_types_of_its_columns(models: Path) -> None:
    table = TableScorer(["alpha"], {"models": models})(ROWS.slice(1, 1))
    assert (table["label"].type, table["score"].type) == (pyarrow.string(), pyarrow.float64())


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (ROWS.rename_columns(["id", "review"]), {}, "no column 'text'"),
        (ROWS.rename_columns(["label", "text"]), {}, "column 'label' already"),
    ],
)
def test_a_table_with_other_columns_is_refused(
    models: Path, rows: pyarrow.Table, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(StartError, match=message):
        TableScorer(["alpha"], {"models": models}, **options)(rows)


@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed: pip install 'ladabert[ray]'")
@pytest.mark.slow
@pytest.mark.xdist_group("server")
def test_ray_data_gives_every_row_the_answer_of_the_command(models: Path, tmp_path: Path) -> None:
    expected = scored(MANY, models, tmp_path, ["alpha"])
    arguments = [str(tmp_path / "rows.parquet"), str(models), str(tmp_path / "labelled")]
    subprocess.run(
        [sys.executable, "-c", ON_RAY, *arguments], env=ray_environment(), check=True, timeout=PATIENCE_S, cwd=tmp_path
    )
    assert as_rows(pyarrow.parquet.read_table(tmp_path / "labelled")) == as_rows(expected)
