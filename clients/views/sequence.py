"""A trace as a sequence diagram in text: a lifeline for each actor, an arrow for each message, time downwards.

An actor's name stands above its lifeline, on a line of its own, so that names are never cut and lifelines can stand
close together. A lifeline is heavy while its actor is in a handler; an answer's arrow is dashed.
"""

from rich.text import Text

from exeunt.runtime.trace import Trace

from ..output import ACCENT
from .design import MARKS
from .hops import STYLES, Hop, hops, interval, names, title
from .printable import printable

TIME_WIDTH = 10
GAP_MIN, GAP_MAX = 3, 14
"""Columns between two lifelines."""

_HEAVY = {"│": "┃", "├": "┠", "┤": "┨"}
_ENDS = {outcome: MARKS[outcome][0] for outcome in ("failed", "dropped", "refused", "cancelled")}


def render(trace: Trace, *, width: int = 80) -> Text:
    """The diagram, in `width` columns where the number of actors allows."""
    found = hops(trace)
    short = names(trace)
    places = {address: number for number, address in enumerate(short)}
    longest = max(len(_label(hop)) for hop in found)
    gap = (width - TIME_WIDTH - longest) // max(1, len(places))
    gap = max(GAP_MIN, min(GAP_MAX, gap))
    lines = [_name(printable(name), number, gap) for number, name in enumerate(short.values())]
    lines += [_message(hop, places, gap, _busy(hop, found, places)) for hop in found]
    return Text("\n", no_wrap=True, overflow="ignore").join(lines)


def _name(name: str, number: int, gap: int) -> Text:
    line = Text(" " * TIME_WIDTH, no_wrap=True, overflow="ignore")
    line.append("│".ljust(gap) * number, style="dim")
    line.append(name, style=ACCENT)
    return line


def _busy(hop: Hop, found: list[Hop], places: dict[str, int]) -> set[int]:
    """The lifelines of the actors that are in a handler when this message is sent."""
    at = hop.span.first_ns
    return {
        places[other.span.to]
        for other in found
        if (started := other.span.started_ns) is not None
        and started <= at
        and (at <= other.span.ended_ns if other.span.ended_ns is not None else other.span.outcome == "pending")
    }


def _message(hop: Hop, places: dict[str, int], gap: int, busy: set[int]) -> Text:
    begin, end = places[hop.span.from_], places[hop.span.to]
    cells = list("│".ljust(gap) * len(places))
    style = _draw(cells, begin * gap, end * gap, hop)
    for place in busy:
        cells[place * gap] = _HEAVY.get(cells[place * gap], cells[place * gap])
    line = Text(f"{interval(hop.at_ms):>{TIME_WIDTH - 2}}  ", style="dim", no_wrap=True, overflow="ignore")
    left, right = sorted((begin * gap, end * gap))
    right = max(right, left + 2) if begin == end else right
    drawn = "".join(cells)
    line.append(drawn[:left], style="dim")
    line.append(drawn[left : right + 1], style=f"not dim {style}".strip())
    line.append(drawn[right + 1 :], style="dim")
    line.append(_label(hop), style=f"not dim {style}".strip())
    return line


def _label(hop: Hop) -> str:
    outcome = "" if hop.span.outcome == "ok" else f" ({printable(hop.span.outcome)})"
    return f" {title(hop)}{outcome}"


def _draw(cells: list[str], begin: int, end: int, hop: Hop) -> str:
    """Draw the arrow into `cells`, and return its style."""
    stop = _ENDS.get(hop.span.outcome)
    stroke = "╌" if hop.is_answer else "─"
    if begin == end:
        cells[begin : begin + 3] = f"├─{stop or '↺'}"
    elif begin < end:
        cells[begin + 1 : end] = stroke * (end - begin - 1)
        cells[begin], cells[end - 1] = "├", stop or "▶"
    else:
        cells[end + 1 : begin] = stroke * (begin - end - 1)
        cells[begin], cells[end + 1] = "┤", stop or "◀"
    return "red" if hop.span.kind == "failure" else STYLES.get(hop.span.outcome, "")
