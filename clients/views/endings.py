"""Ended connections as a table: when, with whom, why, and how long it took to know."""

from collections.abc import Sequence

from rich.console import RenderableType
from rich.text import Text

from ..contract import Ending
from .design import state, table
from .printable import clock, milliseconds, printable

UNEXPECTED = frozenset(
    {"network_lost", "worker_crashed", "supervisor_died", "process_died", "device_lost", "protocol_error"}
)
"""Causes that nobody chose."""


def render(endings: Sequence[Ending]) -> RenderableType:
    """A table, oldest first. The side is shown where both sides are in it."""
    if not endings:
        return Text("No connection has ended yet.", style="dim")
    both = len({ending.side for ending in endings}) > 1
    days = len({ending.ended_at[:10] for ending in endings}) > 1
    columns = ["PEER", "ENDED UTC", *(["SIDE"] if both else []), "CAUSE", "BY", "KNOWN AFTER", "PATH"]
    listed = table(*columns)
    for ending in endings:
        listed.add_row(*_cells(ending, with_side=both, with_day=days))
    return listed


def acknowledged(value: bool | None) -> Text:
    """Whether the goodbye was confirmed: a tick, a cross, or a dash where none was due."""
    if value is None:
        return Text("–", style="dim")
    return Text("✓", style="green") if value else Text("✗", style="yellow")


def _cells(ending: Ending, *, with_side: bool, with_day: bool) -> list[Text | str]:
    ended = f"{printable(ending.ended_at[5:10])} " if with_day else ""
    known = acknowledged(ending.acknowledged).append(f" {milliseconds(ending.detection_ms)}", style="not dim default")
    return [
        printable(ending.peer),
        f"{ended}{clock(ending.ended_at)}",
        *([ending.side] if with_side else []),
        Text(printable(ending.cause), style="red" if ending.cause in UNEXPECTED else ""),
        ending.initiated_by,
        known,
        state(ending.path),
    ]
