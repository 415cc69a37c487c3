"""A log record as one line: time, severity, who, what, and the facts beside it."""

from collections.abc import Mapping
from typing import Any

from rich.text import Text

from ..output import ACCENT
from .printable import clock, printable

SEVERITIES = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
_STYLES = {"DEBUG": "dim", "WARNING": "yellow", "ERROR": "red", "CRITICAL": "bold red"}
_LEADING = frozenset({"time", "severity", "message"})
_HIDDEN = _LEADING | {"actor", "worker", "instance", "node", "logger", "exception"}


def render(record: Mapping[str, Any], *, verbose: bool = False) -> Text:
    """One line; with `verbose` every field. An exception's traceback follows in lines of its own."""
    severity = printable(record.get("severity", "?"))
    line = Text(f"{clock(str(record.get('time', '')), digits=3)} ", style="dim", overflow="fold")
    line.append(f"{severity.lower():<8}", style=f"not dim {_STYLES.get(severity, '')}".strip())
    who = record.get("actor") or record.get("worker")
    if who:
        line.append(f"{printable(who)}  ", style=f"not dim {ACCENT}")
    line.append(printable(record.get("message", "")), style=f"not dim {_STYLES.get(severity, '')}".strip())
    hidden = _LEADING if verbose else _HIDDEN
    for key, value in record.items():
        if key not in hidden and key != "exception":
            line.append(f"  {printable(key)}={printable(value)}", style="dim")
    for text in str(record.get("exception", "")).splitlines():
        line.append(f"\n    {printable(text)}", style="dim")
    return line
