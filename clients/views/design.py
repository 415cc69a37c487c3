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
    "refused": BUSY,
    "idle": IDLE,
    "exited": IDLE,
    "signed_out": IDLE,
    "offline": IDLE,
    "fatal": BAD,
    "failed": BAD,
    "dropped": BAD,
}
"""The shape and colour of every state there is."""


def state(word: str | None, *, with_word: bool = True) -> Text:
    """A state's mark, and the word itself."""
    if word is None:
        return Text("–", style="dim")
    mark, style = MARKS.get(word, IDLE)
    return Text(f"{mark} {word}" if with_word else mark, style=style)


def table(*columns: str, right: frozenset[str] | set[str] = frozenset()) -> Table:
    """A table in the house style: no lines, small dim headings, cells never wrapped.

    Args:
        columns: the headings, the first of which is set in the accent colour below.
        right: those whose cells are aligned to the right.
    """
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim", show_edge=False)
    for number, heading in enumerate(columns):
        side: Literal["left", "right"] = "right" if heading in right else "left"
        style = ACCENT if number == 0 else ""
        made.add_column(heading, justify=side, no_wrap=True, style=style, overflow="ellipsis")
    return made


def heading(text: str) -> Text:
    """A heading above a table."""
    return Text(text, style="bold")
