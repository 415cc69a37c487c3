"""Logs: one JSON object a line, written by the standard library's `logging`.

`time` (RFC 3339, UTC, nanoseconds), `severity` and `message` come first and are always there; every other fact is a
field beside them (`extra={...}` at the call). Each process writes a file of its own, so lines are never torn.
"""

from __future__ import annotations

import logging
import logging.handlers
import time
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from .context import current

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}
_FIRST = frozenset({"time", "severity"})  # an extra field of that name gets an underscore
_MAX_BYTES = 20 * 1024 * 1024
_SEVERITIES = {
    logging.DEBUG: "DEBUG",
    logging.INFO: "INFO",
    logging.WARNING: "WARNING",
    logging.ERROR: "ERROR",
    logging.CRITICAL: "CRITICAL",
}


def rfc3339(at_ns: int) -> str:
    """Write CLOCK_REALTIME nanoseconds as RFC 3339 in UTC, all nine digits kept."""
    seconds, rest = divmod(at_ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"


def _jsonable(value: Any) -> Any:
    return str(value)


def _written(value: Any) -> str:
    try:
        text = value if isinstance(value, str) else repr(value)
    except Exception as broken:  # noqa: BLE001 - its own __repr__ raises
        text = f"({type(value).__name__}: its __repr__ raised {type(broken).__name__})"
    return text.encode(errors="backslashreplace").decode()


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001 - arguments that do not fit their format: the sentence alone, rather than no line
        return _written(record.msg)


class JsonLines(logging.Formatter):
    """Formats a record as one JSON object."""

    def __init__(self, **fields: str | int) -> None:
        super().__init__()
        self._fields = fields
        self._encode = msgspec.json.Encoder(enc_hook=_jsonable).encode

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its newline."""
        line: dict[str, Any] = {
            "time": rfc3339(time.time_ns()),
            "severity": _SEVERITIES.get(record.levelno, record.levelname),
            "message": _message(record),
            "logger": record.name,
            **self._fields,
        }
        context = current()
        if context is not None:
            line["actor"] = context.to
            line["trace"] = f"{context.trace:016x}"
        for key, value in vars(record).items():
            if key not in _STANDARD:
                line[f"{key}_" if key in _FIRST else str(key)] = value
        if record.exc_info and record.exc_info[0] is not None:
            line["exception"] = "".join(traceback.format_exception(*record.exc_info))
        try:
            return self._encode(line).decode()
        except Exception:  # noqa: BLE001 - whatever a field is, the line must be written
            return self._encode({_written(key): self._plain(value) for key, value in line.items()}).decode()

    def _plain(self, value: Any) -> Any:
        """Return the value if JSON can carry it, else text that it can."""
        try:
            self._encode(value)
        except Exception:  # noqa: BLE001 - as above
            return _written(value)
        return value


def configure(path: Path, *, level: str = "INFO", **fields: str | int) -> None:
    """Send this process's log to `path` as JSON Lines, each with `fields` (node, worker, …) beside it.

    The file is appended to, and rotated at 20 MB with one predecessor kept.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handler = logging.handlers.RotatingFileHandler(path, maxBytes=_MAX_BYTES, backupCount=1, encoding="utf-8")
    path.chmod(0o600)
    handler.setFormatter(JsonLines(**fields))
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    root.setLevel(level)
    for noisy in ("aioice", "websockets", "asyncio", "uvicorn", "pyroute2"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, root.level))
