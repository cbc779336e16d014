"""Structured logs: messages that stay the same, and in `extra` the fields that vary; as text or as JSON lines.

log.info("attached", extra={"device": "eth0", "direction": "rx"})
"""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import IO, Any

#: What every record has; all else came with `extra` and is a field.
_NOT_FIELDS = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}


def configure(level: str = "info", format: str = "text", stream: IO[str] | None = None) -> None:
    """Sends the records of wiremeter's loggers, `level` and above, to `stream` (standard error) as "text" or "json".

    Calling it again replaces what the last call set. Other libraries' warnings go the same way.
    """
    handler = logging.StreamHandler(stream if stream is not None else sys.stderr)
    handler.setFormatter(JsonFormatter() if format == "json" else TextFormatter())
    root = logging.getLogger()
    for old in [old for old in root.handlers if getattr(old, "of_wiremeter", False)]:
        root.removeHandler(old)
    handler.of_wiremeter = True  # type: ignore[attr-defined]
    root.addHandler(handler)
    logging.getLogger("wiremeter").setLevel(level.upper())


class TextFormatter(logging.Formatter):
    """`2025-11-22T14:31:00.123Z INFO attached device=eth0 direction=rx`, one line a record but for tracebacks."""

    def format(self, record: logging.LogRecord) -> str:
        words = [_timestamp(record), record.levelname, _one_line(record.getMessage())]
        words += [f"{key}={_value(value)}" for key, value in _fields_of(record).items()]
        return "\n".join(filter(None, (" ".join(words), self._traceback(record))))

    def _traceback(self, record: logging.LogRecord) -> str:
        return self.formatException(record.exc_info) if record.exc_info else ""


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, the fields, and the traceback as `exception`."""

    def format(self, record: logging.LogRecord) -> str:
        entry = _fields_of(record) | {
            "time": _timestamp(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        first = ("time", "level", "logger", "message")
        return json.dumps({key: entry.pop(key) for key in first} | entry, default=str)


def _fields_of(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if name not in _NOT_FIELDS}


def _timestamp(record: logging.LogRecord) -> str:
    """UTC, RFC 3339, milliseconds."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"


def _one_line(text: str) -> str:
    """`text` without control characters: what a device is called must not forge a log line or move a cursor."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _value(value: object) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    if text and text.isprintable() and not any(c in ' "=' for c in text):
        return text
    return json.dumps(text)
