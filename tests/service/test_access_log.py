"""Claims about the line that a request writes."""

import json
import logging
import sys
from pathlib import Path

import pytest

from ladabert_serve.observability.logs import JsonFormatter, TextFormatter
from tests.service.conftest import serving

SECRET = "nobody else's business"


def lines(models: Path, caplog: pytest.LogCaptureFixture, **options: bool) -> list[logging.LogRecord]:
    caplog.clear()
    with caplog.at_level(logging.INFO, "ladabert_serve.http.access_log"), serving(models, **options) as server:
        server.classify({"inputs": SECRET}, headers={"x-request-id": "my-id"})
        server.classify({"inputs": []})
    return [record for record in caplog.records if record.name == "ladabert_serve.http.access_log"]


def test_a_request_writes_one_line_with_its_id_and_steps(models: Path, caplog: pytest.LogCaptureFixture) -> None:
    answered, refused = lines(models, caplog, access_log=True)
    line = json.loads(JsonFormatter().format(answered))
    assert (line["request_id"], line["model"], line["status"], line["inputs"]) == ("my-id", "alpha", 200, 1)
    assert line["tokenize_ms"] + line["queue_ms"] + line["inference_ms"] <= line["total_ms"] + 0.01
    assert json.loads(JsonFormatter().format(refused))["status"] == 422


def test_a_text_is_written_only_when_asked_for(models: Path, caplog: pytest.LogCaptureFixture) -> None:
    for record in lines(models, caplog, access_log=True):
        assert SECRET not in JsonFormatter().format(record)
        assert SECRET not in TextFormatter().format(record)
    answered, _ = lines(models, caplog, access_log=True, log_texts=True)
    assert json.loads(JsonFormatter().format(answered))["texts"] == [[SECRET, None]]


def test_a_text_cannot_forge_a_log_line(models: Path, caplog: pytest.LogCaptureFixture) -> None:
    record = logging.makeLogRecord({"msg": "answered", "fields": {"texts": ["a\nERROR forged"]}})
    assert "\n" not in TextFormatter().format(record)


def test_no_request_writes_a_line_by_default(models: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert lines(models, caplog) == []


ODD = ["\n", "\r", "\x1b[2J", "\x85", "\u2028", "\ud800", "\0", "\u202e"]


@pytest.mark.parametrize("odd", ODD, ids=ascii)
def test_nothing_that_is_quoted_forges_a_log_line_or_reaches_the_terminal_as_a_control_character(odd: str) -> None:
    text = f"it said {odd}2026-01-01 00:00:00,000 ERROR service: forged"
    try:
        raise ValueError(text)
    except ValueError:
        record = logging.makeLogRecord({"msg": "failed: %s", "args": (text,), "exc_info": sys.exc_info()})
    first, *others = TextFormatter().format(record).split("\n")
    assert "failed: it said" in first
    assert all(line.startswith("  ") for line in others)
    assert all(line.isprintable() for line in [first, *others])
    line = JsonFormatter().format(record)
    assert line.isascii()
    assert line.isprintable()
    assert text in json.loads(line)["traceback"]


# Named by type: a name with an address in it would differ between the processes of pytest-xdist.
UNKNOWN_TO_JSON = [b"bytes", {1, 2}, {(1, 2): 3}, object(), float("nan"), [[[]]] * 3]


@pytest.mark.parametrize("value", UNKNOWN_TO_JSON, ids=lambda value: type(value).__name__)
def test_a_value_that_json_does_not_know_is_written_all_the_same(value: object) -> None:
    holds_itself = [value]
    holds_itself.append(holds_itself)
    for field in (value, holds_itself):
        record = logging.makeLogRecord({"msg": "answered", "fields": {"status": 200, "value": field}})
        json.loads(JsonFormatter().format(record))
        assert " status=200 value=" in TextFormatter().format(record)
