"""Text for a terminal.

Much of what is shown came from elsewhere: a peer's name, a message in a log. Control characters in it
would be obeyed by the terminal, so they are shown instead. Amounts are shown in the unit that suits
them.
"""

from typing import Any

from ..durations import show as show_duration

__all__ = ["clock", "dash", "milliseconds", "printable", "show_duration", "size"]


def printable(value: Any) -> str:
    """`value` as text, its control and bidirectional characters made visible."""
    text = value if isinstance(value, str) else str(value)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def clock(time: str, *, digits: int = 0) -> str:
    """The time of day in an RFC 3339 time, with so many digits of the second's fraction."""
    _, _, rest = printable(time).partition("T")
    seconds, _, fraction = rest.rstrip("Z").partition(".")
    return f"{seconds}.{fraction[:digits].ljust(digits, '0')}" if digits else seconds


def dash(value: Any, suffix: str = "") -> str:
    """`value`, or a dash where there is none."""
    return "–" if value is None else f"{printable(value)}{suffix}"


def milliseconds(value: float | None) -> str:
    """A duration given in milliseconds, or a dash."""
    return "–" if value is None else show_duration(value / 1000)


def size(n_bytes: int | None) -> str:
    """A number of bytes in binary units, or a dash."""
    if n_bytes is None:
        return "–"
    amount = float(n_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1000 or unit == "GiB":
            break
        amount /= 1024
    return f"{n_bytes} B" if unit == "B" else f"{amount:.3g} {unit}"
