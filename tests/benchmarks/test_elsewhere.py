"""Rows from elsewhere have a clear rating and are not in train."""

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from benchmarks.elsewhere import DOMAINS, FILMS, RATINGS, TEACHER, clear_rows, film_sentences, normalised, sections
from benchmarks.harness.results import Results

FILM_ROWS = "1\t2.5\tA warm and very funny film.\r\n2\t0.1\tNot bad\r\n3\t-3\tan utter bore from start to end\r\n"
ROWS = "1\t2.5\tA good phone.\r\n2\t-1.0\tIt broke .\r\n3\t0.9\tIt is a phone.\r\n4\t-3\tNever again\r\n"


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as members:
        for file, rows in ((DOMAINS["products"], ROWS), (FILMS, FILM_ROWS)):
            member = tarfile.TarInfo(f"hutto/{file}")
            member.size = len(rows.encode())
            members.addfile(member, io.BytesIO(rows.encode()))
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


def test_sentences_on_films_that_share_five_words_with_a_known_text_are_left_out(archive: Path) -> None:
    assert film_sentences(archive, ["bad"]) == [
        "A warm and very funny film.",
        "Not bad",
        "an utter bore from start to end",
    ]
    known = ["really an utter bore , from start", "it is not bad", "a warm and funny film", "not bad ."]
    assert film_sentences(archive, known) == ["A warm and very funny film."]


def test_figures_of_all_domains_weigh_each_row_alike() -> None:
    results = Results("elsewhere", {"command": "c", "commit": "c", "date": "d", "machine": "m"})
    for domain, rows, teacher, student in (("a", 100, 0.9, 0.8), ("b", 300, 0.5, 0.5)):
        results.add("domains", domain=domain, rows=rows, positive=1)
        results.add("predictions", model=TEACHER, domain=domain, accuracy=teacher)
        results.add("predictions", model="s", domain=domain, accuracy=student, agreement=0.75)
    text = sections(results)["elsewhere"]
    assert "| teacher | 90.0 % | 50.0 % | 60.0 % |" in text
    assert "| s | 80.0 % (88.9, 75.0) | 50.0 % (100.0, 75.0) | 57.5 % (95.8, 75.0) |" in text
