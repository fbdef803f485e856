"""Rows from elsewhere have a clear rating and are not in train, and the page says what was measured."""

import io
import json
import tarfile
import zipfile
from pathlib import Path

import pytest

from benchmarks.compression.evidence.table import put_into
from benchmarks.elsewhere import DOMAINS, PAGE, RATINGS, RESULTS, clear_rows, markdown, normalised

ROWS = "1\t2.5\tA good phone.\r\n2\t-1.0\tIt broke .\r\n3\t0.9\tIt is a phone.\r\n4\t-3\tNever again\r\n"


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as members:
        member = tarfile.TarInfo(f"hutto/{DOMAINS['products']}")
        member.size = len(ROWS.encode())
        members.addfile(member, io.BytesIO(ROWS.encode()))
    with zipfile.ZipFile(tmp_path / "package.zip", "w") as package:
        package.writestr(f"package-0.5/{RATINGS}", packed.getvalue())
    return tmp_path / "package.zip"


def test_rows_without_a_clear_rating_are_left_out(archive: Path) -> None:
    found = clear_rows(archive, DOMAINS["products"], known=())
    assert found.texts == ("A good phone.", "It broke .", "Never again")
    assert found.labels == ("positive", "negative", "negative")


def test_rows_that_train_has_are_left_out_however_they_are_spaced(archive: Path) -> None:
    found = clear_rows(archive, DOMAINS["products"], known={normalised("it  broke.")})
    assert found.texts == ("A good phone.", "Never again")


def test_the_page_says_what_the_results_say() -> None:
    page = PAGE.read_text(encoding="utf-8")
    figures = json.loads(RESULTS.read_text(encoding="utf-8"))
    assert f"`{figures['command']}`" in page
    assert page == put_into(page, {"elsewhere": markdown(figures)})
