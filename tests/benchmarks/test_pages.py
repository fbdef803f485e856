"""Claims about the sections of pages that code fills."""

import re
from pathlib import Path

import pytest

from benchmarks.__main__ import MEASURES, PREPARES, all_sections, main
from benchmarks.harness.pages import PageError, all_pages, figure, fill, filled, sections_in, table

PAGE = "before\n<!-- figures: a -->\nold\n<!-- end -->\nbetween\n<!-- figures: b -->\n<!-- end -->\nafter\n"


def test_a_section_replaces_what_stood_between_its_markers_and_nothing_else() -> None:
    text = filled(PAGE, {"a": "new\n"})
    assert text == PAGE.replace("old\n", "new\n")
    assert filled(text, {"b": "x\n"}) == text.replace("b -->\n", "b -->\nx\n")


def test_filling_twice_changes_nothing_more(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE, encoding="utf-8")
    assert fill({"a": "new \\1\n", "b": "x\n"}, [page]) == [page]
    once = page.read_text(encoding="utf-8")
    assert "new \\1\n" in once
    assert fill({"a": "new \\1\n", "b": "x\n"}, [page]) == []
    assert page.read_text(encoding="utf-8") == once


def test_a_section_may_stand_in_any_page(tmp_path: Path) -> None:
    first, second = tmp_path / "first.md", tmp_path / "second.md"
    first.write_text("no section", encoding="utf-8")
    second.write_text(PAGE, encoding="utf-8")
    assert fill({"a": "new\n"}, [first, second]) == [second]


@pytest.mark.parametrize("text", ["no section", PAGE.replace("<!-- end -->", ""), PAGE.replace("a -->", "c -->")])
def test_missing_markers_are_refused_before_anything_is_written(text: str, tmp_path: Path) -> None:
    page, other = tmp_path / "page.md", tmp_path / "other.md"
    page.write_text(text, encoding="utf-8")
    other.write_text("<!-- figures: d -->\n<!-- end -->", encoding="utf-8")
    with pytest.raises(PageError, match="no page has <!-- figures: a -->"):
        fill({"a": "new\n", "d": "new\n"}, [page, other])
    assert page.read_text(encoding="utf-8") == text
    assert "new" not in other.read_text(encoding="utf-8")


def test_checking_writes_nothing(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE, encoding="utf-8")
    assert fill({"a": "new\n"}, [page], write=False) == [page]
    assert page.read_text(encoding="utf-8") == PAGE


def test_a_table_keeps_a_bar_in_a_cell_apart_from_its_own() -> None:
    assert table(["a", ""], [["x | y", 1]]) == "| a |  |\n|---|---|\n| x \\| y | 1 |\n"


@pytest.mark.parametrize(("value", "text"), [(None, "–"), (0.12345, "0.123"), (99.94, "99.9"), (1234.5, "1,234")])
def test_a_figure_has_three_digits_and_never_fewer_than_the_whole_number(value: float | None, text: str) -> None:
    assert figure(value) == text


@pytest.fixture(scope="module")
def sections() -> dict[str, str]:
    return all_sections()


@pytest.mark.parametrize("page", all_pages(), ids=lambda page: page.name)
def test_every_section_says_what_the_committed_results_say(page: Path, sections: dict[str, str]) -> None:
    text = page.read_text(encoding="utf-8")
    assert text == filled(text, sections), "run: python -m benchmarks pages"


def test_every_section_stands_in_one_page_and_code_fills_every_section(sections: dict[str, str]) -> None:
    names = [name for page in all_pages() for name in sections_in(page.read_text(encoding="utf-8"))]
    assert sorted(names) == sorted(sections)


def test_the_pages_command_says_which_page_differs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE, encoding="utf-8")
    monkeypatch.setattr("benchmarks.__main__.all_pages", lambda: [page])
    monkeypatch.setattr("benchmarks.__main__.all_sections", lambda: {"a": "new\n"})
    monkeypatch.setattr("benchmarks.__main__.REPOSITORY", tmp_path)
    drawn: list[bool] = []
    monkeypatch.setattr("benchmarks.__main__.draw_all", lambda: drawn.append(True))
    assert main(["pages", "--check"]) == 1
    assert capsys.readouterr().out == "page.md: differs from the results\n"
    assert not drawn
    assert main(["pages"]) == 0
    assert drawn
    assert main(["pages", "--check"]) == 0


def test_the_help_lists_every_command_in_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    told = capsys.readouterr().out
    for name in (*MEASURES, *PREPARES, "pages"):
        assert re.search(rf"^    {name}\s+[A-Z]", told, re.MULTILINE), name


@pytest.mark.parametrize("name", [*MEASURES, *PREPARES])
def test_every_command_says_what_it_measures_and_how_it_is_called(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    assert f"python -m benchmarks {name} " in capsys.readouterr().out


def test_the_pages_name_commands_that_are_there() -> None:
    for page in all_pages():
        text = page.read_text(encoding="utf-8")
        current = "".join(re.split(r"<!-- figures: \S+ -->.*?<!-- end -->", text, flags=re.DOTALL))
        for name in re.findall(r"python -m benchmarks[ .]([\w.-]+)", current):
            assert name in {*MEASURES, *PREPARES, "pages"}, f"{page.name}: {name}"
