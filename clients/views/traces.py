"""A list of traces, and of what each actor handled last."""

from collections.abc import Sequence

from rich.console import RenderableType
from rich.text import Text

from ..contract import LastHandledRow, TraceRow
from ..output import ACCENT
from .design import state, table
from .hops import bare_name, interval
from .printable import clock, printable


def render(rows: Sequence[TraceRow], *, empty: str = "Nothing has been recorded yet.") -> RenderableType:
    """A table of traces: the message that began each, from whom to whom, and what became of it."""
    if not rows:
        return Text(empty, style="dim")
    columns = ("TRACE", "BEGAN UTC", "MESSAGE", "SPANS", "TOOK", "OUTCOME")
    listed = table(*columns, right={"TOOK", "SPANS"}, yields="MESSAGE")
    when = _times([row.started_at for row in rows])
    for row, began in zip(rows, when, strict=True):
        message = Text(printable(row.message), no_wrap=True, overflow="ellipsis")
        message.append(f" → {printable(bare_name(row.to))}", style=ACCENT)
        message.append(f"  from {printable(bare_name(row.from_))}", style="dim")
        listed.add_row(row.id, began, message, f"{row.spans:,}", interval(row.duration_ms), state(row.outcome))
    return listed


def render_last(rows: Sequence[LastHandledRow]) -> RenderableType:
    """A table of actors: what each handled last, and whether it finished."""
    if not rows:
        return Text("Nothing was handled.", style="dim")
    waiting = ["WAITING"] if any(row.waiting for row in rows) else []
    columns = ("ACTOR", "WORKER", "MESSAGE", "AT UTC", "RAN", "OUTCOME", *waiting)
    listed = table(*columns, right={"RAN", "WAITING"}, yields="MESSAGE")
    nodes = {row.address.partition("/")[0] for row in rows}
    when = _times([row.started_at for row in rows])
    for row, began in zip(rows, when, strict=True):
        node, _, rest = row.address.partition("/")
        name = rest.rpartition("/")[2] or node  # the worker has a column of its own
        name = name if len(nodes) == 1 else f"{node}/{name}"
        message = Text(printable(row.message), no_wrap=True, overflow="ellipsis")
        message.append(f"  from {printable(bare_name(row.from_))}", style="dim")
        worker = state("running" if row.alive else "exited", with_word=False)
        worker.append(f" {printable(row.worker)}", style="default" if row.alive else "dim")
        worker.append(f" {row.pid}", style="dim")
        cells = [Text(f"{row.waiting:,}", style="yellow" if row.waiting else "dim")] if waiting else []
        listed.add_row(printable(name), worker, message, began, interval(row.ran_ms), _finished(row), *cells)
    return listed


def _finished(row: LastHandledRow) -> Text:
    if row.outcome != "pending":
        return state(row.outcome)
    return Text("◐ running", style="yellow") if row.alive else Text("✖ died in it", style="red")


def _times(times: Sequence[str]) -> list[str]:
    """The times of day; with the days where there are several."""
    days = {time[:10] for time in times}
    return [(f"{time[5:10]} " if len(days) > 1 else "") + clock(time) for time in times]
