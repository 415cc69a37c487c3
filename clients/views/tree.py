"""A trace as a causal tree: each message below the one whose handler sent it.

An ask and its answer are one line, `Fetch → fetcher-1 ↩ Page`: an answer is handled by nobody, it only wakes who
waits for it. One that got lost, or whose ask is not in the record, has a line of its own.
"""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from exeunt.runtime.trace import Trace

from ..output import ACCENT
from .design import state, table
from .hops import STYLES, Hop, answers, hops, interval, names, title
from .printable import printable

_LEGEND = {
    "↩": "answered with",
    "↻": "sent again after it did not succeed",
    "×": "so many, back to back",
    "⊘": "refused",
    "▼": "dropped",
    "○": "cancelled",
    "◐": "pending",
}
"""What a tree may contain that does not explain itself."""


class _Branches:
    """The lines that hang below each message, and the answers that are part of their asks' lines."""

    def __init__(self, found: list[Hop]) -> None:
        self.below: dict[int, list[Hop]] = {}
        self.answers = answers(found)
        folded = {hop.span.id for hop in self.answers.values()}
        for hop in found:
            if hop.span.id not in folded:
                self.below.setdefault(hop.cause.id if hop.cause is not None else 0, []).append(hop)


def render(trace: Trace) -> RenderableType:
    """The tree, with the time a message waited apart from the time its handler ran."""
    branches = _Branches(hops(trace))
    listed = table("MESSAGE", "WORKER", "QUEUED", "RAN", right={"QUEUED", "RAN"}, yields="MESSAGE")
    short = names(trace)
    written: list[str] = []
    while branches.below:
        # 0 first. What is left after it hangs below itself, as a damaged ring may claim.
        _add(listed, branches, next(iter(sorted(branches.below))), None, short, written)
    marks = set("".join(written))
    legend = "  ".join(f"{mark} {words}" for mark, words in _LEGEND.items() if mark in marks)
    return Group(summary(trace), Text(), listed, *([Text(), Text(legend, style="dim")] if legend else []))


def summary(trace: Trace) -> Text:
    """One line about the whole trace."""
    workers = len({span.worker for span in trace.spans})
    line = Text(f"{trace.id:016x}", style=ACCENT)
    line.append(f"  {printable(trace.root.message)}", style="bold default")
    line.append(f"  {interval(trace.duration_ns / 1e6)}  ", style="default")
    line.append_text(state(trace.outcome))
    line.append(f"  {_count(trace.messages, 'message')}, {_count(workers, 'worker')}", style="dim")
    return line


def _add(  # noqa: PLR0917 - one recursion's state
    listed: Table, branches: _Branches, cause: int, indent: str | None, short: dict[str, str], written: list[str]
) -> None:
    # Taking the branches out makes a cycle of causes end. At the top there is no indent, not even an empty one.
    effects = branches.below.pop(cause, [])
    for number, hop in enumerate(effects):
        last = number == len(effects) - 1
        branch = "" if indent is None else indent + ("└─ " if last else "├─ ")
        below = "" if indent is None else indent + ("   " if last else "│  ")
        label = _label(branch, hop, short, branches.answers.get(hop.span.id))
        written.append(label.plain)
        listed.add_row(label, printable(hop.span.worker), *_times(hop))
        _add(listed, branches, hop.span.id, below, short, written)


def _label(branch: str, hop: Hop, short: dict[str, str], answer: Hop | None) -> Text:
    label = Text(branch, style="dim", no_wrap=True, overflow="ellipsis")
    label.append_text(state(hop.span.outcome, with_word=False))
    label.append(f" {'↩ ' if hop.is_answer else ''}{title(hop)}", style="not dim default")
    label.append(f" → {printable(short[hop.span.to])}", style=f"not dim {ACCENT}")
    if answer is not None:
        label.append(f" ↩ {title(answer)}", style="dim default")
    return label


def _times(hop: Hop) -> tuple[Text, Text]:
    outcome = hop.span.outcome
    # A handler that failed ran as well, and how long may be the clue; its mark says that it failed.
    ran = outcome if hop.ran_ms is None and outcome != "ok" else interval(hop.ran_ms)
    return Text(interval(hop.queued_ms), style="dim"), Text(ran, style=STYLES.get(outcome, ""))


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
