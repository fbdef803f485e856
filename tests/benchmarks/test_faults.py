"""Claims about what the fault scripts compute from what they see; the faults themselves are done by hand."""

import asyncio
import json
import re
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.faults import run_all
from benchmarks.faults.callers import begun_after_ms
from benchmarks.faults.report import Options, Report
from benchmarks.faults.run_all import FAULTS, failures, keep, sections
from benchmarks.harness.results import REPOSITORY, Results

PAGE = REPOSITORY / "docs" / "results" / "faults.md"


def test_a_late_text_that_a_run_took_is_told_by_the_access_log() -> None:
    fields = {"tokenize_ms": 1.5, "queue_ms": 90.0}
    lines = [
        {"request_id": "late-100-1", "status": 504, **fields},
        {"request_id": "late-100-2", "status": 504, "tokenize_ms": 1.5},  # was not begun
        {"request_id": "late-100-3", "status": 200, **fields},
        {"request_id": "another", "status": 504, **fields},
    ]
    log = "\n".join(["no JSON", '{"level": "info"}', *map(json.dumps, lines)])
    assert begun_after_ms(log) == {"late-100-1": 91.5}


def test_a_report_holds_when_every_check_does_and_there_is_one() -> None:
    report = Report()
    assert not report.holds
    report.check("a", "1", True)
    assert report.holds
    report.check("b", "2", False)
    assert not report.holds
    assert report.checks[1] == {"promise": "b", "measured": "2", "holds": False}


def test_the_seconds_that_are_asked_for_win_over_the_kind_of_run() -> None:
    assert Options(Path()).duration_s(60, 15) == 60
    assert Options(Path(), quick=True).duration_s(60, 15) == 15
    assert Options(Path(), seconds=9).duration_s(60, 15) == 9


def test_the_page_tells_how_to_run_every_fault() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for name in FAULTS:
        assert f"`{name}`" in page


def test_the_page_names_tests_that_are_there() -> None:
    named = re.findall(r"`(test_\w+\.py)`", PAGE.read_text(encoding="utf-8"))
    assert named
    assert not [name for name in named if not (REPOSITORY / "tests" / "service" / name).exists()]


def found(name: str, measured: str, commit: str = "new", results: Results | None = None) -> Results:
    """Results in which a fault was done."""
    results = results or Results("faults")
    results.origin = {"machine": "m", "commit": commit}
    report = Report()
    report.check("p", measured, measured != "bad")
    report.figures["speed"] = 0.123456
    keep(results, name, report)
    return results


def test_a_fault_done_again_replaces_its_own_rows_and_the_others_keep_their_commit() -> None:
    results = found("overload", "slow", "old", found("sigterm", "fine", "old"))
    results = found("overload", "fast", "new", results)
    assert [(row["fault"], row["commit"], row["measured"]) for row in results.rows("checks")] == [
        ("overload", "new", "fast"),
        ("sigterm", "old", "fine"),
    ]
    assert results.values("figures", "value", fault="overload") == [0.123456]
    assert sections(results)["faults"].startswith("Measured on m, at commit new, old.\n")


def test_a_failed_check_stands_out_and_is_told() -> None:
    results = found("overload", "a | b", results=found("sigterm", "bad"))
    text = sections(results)["faults"]
    assert "| overload | p | a \\| b | ok |" in text
    assert "| sigterm | p | bad | **FAILED** |" in text
    assert failures(results) == ["sigterm: p: bad"]


def test_a_script_that_breaks_fails_its_fault_and_the_others_are_still_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def broken(_: Options) -> Report:
        await asyncio.sleep(0)
        raise OSError("no server")

    async def fine(options: Options) -> Report:
        await asyncio.sleep(0)
        report = Report()
        report.check("asked for", options.seconds, options.seconds == 2)
        return report

    monkeypatch.setattr(run_all, "FAULTS", {"overload": broken, "sigterm": fine})
    file = tmp_path / "faults.json"
    assert main(["faults", "--seconds", "2", "--json", str(file)]) == 1
    assert "FAILED: overload: the script ends: OSError: no server" in capsys.readouterr().out
    assert Results.load(file).values("checks", "holds") == [False, True]
