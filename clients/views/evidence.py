"""Evidence as a person reads it.

Whoever concludes an ending writes down what from, under keys of its own; a newer peer has keys that nobody here has
heard of. A key's words are its name, its last word the unit (`silence_ms`, `last_seen_s_ago`, `rx_bytes`), and that is
enough to show any of it.
"""

from collections.abc import Callable, Mapping
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from .design import sheet
from .printable import clock, milliseconds, printable, size


def render(evidence: Mapping[str, Any]) -> RenderableType:
    """Two columns: what, and how much."""
    listed = sheet()
    for key, value in evidence.items():
        label, text = shown(key, value)
        listed.add_row(Text(f"  {label}", style="dim"), Text(text))
    return listed


def shown(key: str, value: Any) -> tuple[str, str]:
    """A key without its unit, and its value with it."""
    number = _number(value)
    for suffix, unit in _UNITS.items():
        if number is not None and key.endswith(suffix) and key != suffix:
            return _words(key.removesuffix(suffix)), unit(number)
    if key.endswith("_at") and isinstance(value, str) and "T" in value:
        return _words(key.removesuffix("_at")), f"{clock(value, digits=3)} UTC"
    return _words(key), _text(value)


def _words(key: str) -> str:
    return printable(key).replace("_", " ").strip() or printable(key)


def _number(value: Any) -> float | None:
    if isinstance(value, bool):
        return None
    try:
        return float(value) if isinstance(value, int | float | str) else None
    except ValueError:
        return None


def _text(value: Any) -> str:
    match value:
        case bool():
            return "yes" if value else "no"
        case None:
            return "–"
        case list() | tuple():
            return ", ".join(printable(item) for item in value) or "–"  # pyright: ignore[reportUnknownVariableType]
        case _:
            return printable(value)


def _seconds(number: float) -> str:
    return milliseconds(number * 1000)


def _bytes(number: float) -> str:
    return size(int(number))


def _seconds_before(number: float) -> str:
    return f"{_seconds(number)} before"


_UNITS: Mapping[str, Callable[[float], str]] = {
    "_s_ago": _seconds_before,
    "_ms": milliseconds,
    "_s": _seconds,
    "_bytes": _bytes,
}
"""Suffix of a key → how a number with that unit is shown; the longer suffixes first."""
