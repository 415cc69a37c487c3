"""A trace as a causal tree: each message below the one whose handler sent it."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from exeunt.runtime.trace import Trace

from ..output import ACCENT
from .design import state, table
from .hops import Hop, hops, interval, names
from .printable import printable


def render(trace: Trace) -> RenderableType:
    """The tree, with the time a message waited apart from the time its handler ran."""
    found = hops(trace)
    known = {hop.span.id for hop in found}
    children: dict[int, list[Hop]] = {}
    for hop in found:
        # A cause whose own record was overwritten leaves its effects at the top. So does one that names itself.
        rooted = hop.span.cause in known and hop.span.cause != hop.span.id
        children.setdefault(hop.span.cause if rooted else 0, []).append(hop)
    listed = table("MESSAGE", "WORKER", "QUEUED", "RAN", right={"QUEUED", "RAN"})
    short = names(trace)
    while children:
        # 0 first. What is left after it hangs below itself, as a damaged ring may claim.
        _add(listed, children, next(iter(sorted(children))), None, short)
    return Group(summary(trace), Text(), listed)


def summary(trace: Trace) -> Text:
    """One line about the whole trace."""
    workers = len({span.worker for span in trace.spans})
    line = Text(f"{trace.id:016x}", style=ACCENT)
    line.append(f"  {printable(trace.root.message)}", style="bold default")
    line.append(f"  {interval(trace.duration_ns / 1e6)}  ", style="default")
    line.append_text(state(trace.outcome))
    line.append(f"  {_count(len(trace.spans), 'message')}, {_count(workers, 'worker')}", style="dim")
    return line


def _add(listed: Table, children: dict[int, list[Hop]], cause: int, indent: str | None, short: dict[str, str]) -> None:
    # Taking the children out makes a cycle of causes end. At the top there is no indent, not even an empty one.
    effects = children.pop(cause, [])
    for number, hop in enumerate(effects):
        last = number == len(effects) - 1
        branch = "" if indent is None else indent + ("└─ " if last else "├─ ")
        below = "" if indent is None else indent + ("   " if last else "│  ")
        listed.add_row(_label(branch, hop, short), printable(hop.span.worker), *_times(hop))
        _add(listed, children, hop.span.id, below, short)


def _label(branch: str, hop: Hop, short: dict[str, str]) -> Text:
    label = Text(branch, style="dim")
    label.append_text(state(hop.span.outcome, with_word=False))
    label.append(f" {printable(hop.span.message)}", style="not dim default")
    label.append(f" → {printable(short[hop.span.to])}", style=f"not dim {ACCENT}")
    return label


def _times(hop: Hop) -> tuple[Text, Text]:
    ran = hop.span.outcome if hop.ran_ms is None and hop.span.outcome != "ok" else interval(hop.ran_ms)
    bad = hop.span.outcome in {"failed", "dropped"}
    return Text(interval(hop.queued_ms), style="dim"), Text(ran, style="red" if bad else "")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
