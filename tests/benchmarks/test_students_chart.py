"""Claims about the README's chart."""

import re
from pathlib import Path

import pytest

from benchmarks import students_chart
from benchmarks.harness.plots import IMAGES, THEMES, Theme
from benchmarks.harness.results import FOLDER, Results

SVG_TEXT = re.compile(r"<text [^>]*>([^<]*)</text>")
SVG_MARK = re.compile(r'<use [^>]*x="([\d.]+)" y="([\d.]+)"')
TOLERANCE = 2.0  # points of a drawing 518 wide: another matplotlib may set a label a little aside


@pytest.fixture
def results() -> Results:
    return Results.load(FOLDER / "students.json")


def test_the_chart_has_the_teacher_and_every_student_that_was_asked_over_http(results: Results) -> None:
    teacher, *students = students_chart.points(results)
    assert teacher.is_teacher
    (measured,) = results.rows("times", batch=1, tokens=64, name=results.settings["baseline"])
    assert teacher.median_ms == measured["median_ms"]
    assert [student.accuracy for student in students] == [100 * row["accuracy"] for row in results.rows("http")]
    assert len({student.title for student in students}) == len(students)


@pytest.mark.parametrize("theme", THEMES, ids=lambda theme: theme.name)
def test_the_committed_chart_shows_the_committed_results(
    theme: Theme, results: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(students_chart, "IMAGES", tmp_path)
    students_chart.draw(results)
    name = f"students-{theme.name}.svg"
    drawn, committed = ((folder / name).read_text(encoding="utf-8") for folder in (tmp_path, IMAGES))
    assert SVG_TEXT.findall(drawn) == SVG_TEXT.findall(committed), "run: python -m benchmarks pages"
    marks, expected = ([(float(x), float(y)) for x, y in SVG_MARK.findall(text)] for text in (committed, drawn))
    assert len(marks) > len(students_chart.points(results))
    for mark, place in zip(marks, expected, strict=True):
        assert mark == pytest.approx(place, abs=TOLERANCE), "run: python -m benchmarks pages"


def test_the_caption_names_the_machine_and_says_when_no_commit_is_known(results: Results) -> None:
    caption = students_chart.caption(results)
    assert results.origin["machine"] in caption
    results.origin["commit"] = None
    assert "commit not recorded" in students_chart.caption(results)
    results.origin["commit"] = "abc1234"
    assert "commit abc1234" in students_chart.caption(results)


def test_results_without_answers_over_http_draw_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(students_chart, "IMAGES", tmp_path)
    students_chart.draw(Results("students"))
    assert not list(tmp_path.iterdir())
