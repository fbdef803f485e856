"""Log lines as text or JSON, on stderr; one line per request when asked for."""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

from ladabert_serve.settings import Settings


class JsonFormatter(logging.Formatter):
    """One JSON object per line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return time (UTC, RFC 3339), level, logger, message, a request's fields, and the traceback if any."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return _json(line)


class TextFormatter(logging.Formatter):
    """One line of text, a request's fields as `name=value`; a traceback follows it, indented.

    Whatever is quoted, no text of a caller can begin a line or reach the terminal as a control character.
    """

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the library's name
        """Return the line without a traceback."""
        fields = getattr(record, "fields", {})
        return _printable(super().formatMessage(record)) + "".join(
            f" {name}={_json(value)}" for name, value in fields.items()
        )

    def formatException(self, ei: Any) -> str:  # noqa: N802 - the library's name
        """Return a traceback's lines, each indented."""
        return "\n".join("  " + _printable(line) for line in super().formatException(ei).splitlines())


def configure_logging(settings: Settings) -> None:
    """Set up the root logger; called by the command line only."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if settings.log_format == "json" else TextFormatter())
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler], force=True)


def _json(value: Any) -> str:
    """Return ASCII JSON in one line; what JSON does not know is quoted as Python writes it."""
    try:
        return json.dumps(value, default=repr)
    except (TypeError, ValueError, RecursionError):  # keys that are no strings, a value that holds itself
        return json.dumps(repr(value))


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
