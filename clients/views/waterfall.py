"""A trace as a waterfall: a bar for each message along one axis of time, its waiting apart from its running."""

from rich.console import Group, RenderableType
from rich.text import Text

from exeunt.runtime.trace import Trace

from ..output import ACCENT
from .hops import Hop, hops, interval, names
from .printable import printable
from .tree import summary

TRAVEL, QUEUE, RUN = "·", "░", "█"
TIME_WIDTH = 10


def render(trace: Trace, *, width: int = 80) -> RenderableType:
    """The bars, scaled so that the whole trace fills `width` columns."""
    found = hops(trace)
    short = names(trace)
    labels = [f"{printable(hop.span.message)} → {printable(short[hop.span.to])}" for hop in found]
    label_width = min(max(map(len, labels)), width // 2)
    bar_width = max(10, width - label_width - TIME_WIDTH - 3)
    total_ms = max(trace.duration_ns / 1e6, 0.001)
    lines = [_line(hop, label, label_width, bar_width, total_ms) for hop, label in zip(found, labels, strict=True)]
    legend = Text(f"{TRAVEL} on its way  {QUEUE} queued  {RUN} running", style="dim")
    return Group(summary(trace), Text(), *lines, Text(), legend)


def _line(hop: Hop, label: str, label_width: int, bar_width: int, total_ms: float) -> Text:
    cut = label if len(label) <= label_width else f"{label[: label_width - 1]}…"
    line = Text(f"{cut:<{label_width}}  ", style=ACCENT, no_wrap=True, overflow="ellipsis")
    parts = ((hop.travelled_ms, TRAVEL), (hop.queued_ms, QUEUE), (hop.ran_ms, RUN))
    bar, position = "", hop.at_ms
    bar += " " * min(bar_width - 1, round(position / total_ms * bar_width))
    for duration_ms, stroke in parts:
        position += duration_ms or 0.0
        bar += stroke * (min(bar_width, round(position / total_ms * bar_width)) - len(bar))
    if not bar.strip():
        bar += RUN if hop.ran_ms is not None else TRAVEL  # too short to be seen still happened
    bad = hop.span.outcome in {"failed", "dropped"}
    line.append(f"{bar:<{bar_width}}", style="red" if bad else "default")
    spent = sum(duration_ms or 0.0 for duration_ms, _ in parts)
    outcome = interval(spent) if hop.span.outcome == "ok" else printable(hop.span.outcome)
    line.append(f" {outcome:>{TIME_WIDTH}}", style="dim")
    return line
