"""Log lines as text or JSON, on stderr; one line per request when asked for."""

import json
import logging
import sys
from datetime import UTC, datetime

from service.settings import Settings


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
        return json.dumps(line)


class TextFormatter(logging.Formatter):
    """One line of text, a request's fields as `name=value`."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the library's name
        """Return the line without a traceback."""
        fields = getattr(record, "fields", {})
        # As JSON, so that a text with a line feed cannot forge a line.
        return super().formatMessage(record) + "".join(f" {name}={json.dumps(value)}" for name, value in fields.items())


def configure_logging(settings: Settings) -> None:
    """Set up the root logger; called by the command line only."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if settings.log_format == "json" else TextFormatter())
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler], force=True)
