"""The README's table says what was measured, of the students that are bundled."""

import pytest

from benchmarks.readme_table import README, TIMES, WITHOUT_VNNI, page, page_without_vnni, table
from benchmarks.serving.table import MARKERS

MANIFEST = {
    "name": "small",
    "version": "new",
    "teacher": {"parameters": 22_000_000},
    "compression": {"reached_ratio": 10.0, "parameters": 5, "nonzero_parameters": 2},
    "files": {"model.int8.onnx": {"bytes": 3}},
}


def test_the_readme_has_the_figures_that_were_measured() -> None:
    written = README.read_text(encoding="utf-8")
    assert MARKERS.search(written)
    assert written == page(), "run: python -m benchmarks.readme_table"


def test_the_page_on_processors_without_vnni_has_the_times_that_were_measured() -> None:
    written = WITHOUT_VNNI.read_text(encoding="utf-8")
    assert TIMES.search(written)
    assert written == page_without_vnni(), "run: python -m benchmarks.readme_table"


def test_figures_of_another_version_are_refused() -> None:
    with pytest.raises(ValueError, match="small: measured over HTTP at another version"):
        table([MANIFEST], {"small": {"version": "old"}}, {})
