"""A list of traces."""

from collections.abc import Sequence

from rich.console import RenderableType
from rich.text import Text

from ..contract import TraceRow
from .design import state, table
from .hops import interval
from .printable import clock, printable


def render(rows: Sequence[TraceRow]) -> RenderableType:
    """A table of traces: the message that began each, and what became of it."""
    if not rows:
        return Text("Nothing has been recorded yet.", style="dim")
    columns = ("TRACE", "BEGAN UTC", "MESSAGE", "TOOK", "SPANS", "WORKERS", "OUTCOME")
    listed = table(*columns, right={"TOOK", "SPANS", "WORKERS"})
    for row in rows:
        began = clock(row.started_at, digits=3)
        took, counts = interval(row.duration_ms), (str(row.spans), str(row.workers))
        listed.add_row(row.id, began, printable(row.message), took, *counts, state(row.outcome))
    return listed
