"""What all views look like: one accent colour, states told by shape and by colour, tables without lines."""

from typing import Final, Literal

from rich.table import Table
from rich.text import Text

from ..output import ACCENT

GOOD, BUSY, AGAIN, IDLE, BAD = ("●", "green"), ("◐", "yellow"), ("↻", "yellow"), ("○", "dim"), ("✖", "red")

MARKS: Final = {
    "running": GOOD,
    "connected": GOOD,
    "online": GOOD,
    "direct": GOOD,
    "ok": GOOD,
    "starting": BUSY,
    "connecting": BUSY,
    "stopping": BUSY,
    "leaving": BUSY,
    "backoff": AGAIN,
    "pending": BUSY,
    "relay": BUSY,
    "idle": IDLE,
    "exited": IDLE,
    "signed_out": IDLE,
    "offline": IDLE,
    "fatal": BAD,
    "failed": BAD,
    "refused": ("⊘", "yellow"),
    "dropped": ("▼", "red"),
    "cancelled": ("○", "magenta"),
}
"""The shape and colour of every state there is."""


def state(word: str | None, *, with_word: bool = True) -> Text:
    """A state's mark, and the word itself."""
    if word is None:
        return Text("–", style="dim")
    mark, style = MARKS.get(word, IDLE)
    return Text(f"{mark} {word}" if with_word else mark, style=style)


def table(*columns: str, right: frozenset[str] | set[str] = frozenset(), yields: str | None = None) -> Table:
    """A table in the house style: no lines, small dim headings, cells never wrapped.

    Args:
        columns: the headings, the first of which is set in the accent colour below.
        right: those whose cells are aligned to the right.
        yields: the one that is cut where space is short; else all are. Its cells must be texts that do not wrap.
    """
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim", show_edge=False)
    for number, heading in enumerate(columns):
        side: Literal["left", "right"] = "right" if heading in right else "left"
        style = ACCENT if number == 0 else ""
        wraps = heading == yields  # rich narrows the columns that may wrap, and only those if there are any
        made.add_column(heading, justify=side, no_wrap=not wraps, style=style, overflow="ellipsis")
    return made


def sheet(*, texts: int = 1) -> Table:
    """A sheet of facts without headings: narrow columns, then the one whose texts wrap below themselves.

    Args:
        texts: the number of narrow columns before it.
    """
    made = Table.grid(padding=(0, 2, 0, 0))
    for _ in range(texts):
        made.add_column(no_wrap=True)
    made.add_column(overflow="fold")
    return made


def heading(text: str) -> Text:
    """A heading above a table."""
    return Text(text, style="bold")
