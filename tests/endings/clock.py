"""The one clock of all records: RFC 3339 in UTC, read as Unix seconds."""

from __future__ import annotations

from datetime import datetime


def unix(rfc3339: str) -> float:
    """RFC 3339 in UTC, with any number of digits, as Unix seconds."""
    seconds, _, fraction = rfc3339.removesuffix("Z").partition(".")
    return datetime.fromisoformat(f"{seconds}+00:00").timestamp() + float(f"0.{fraction or 0}")
