"""A trace as a waterfall: a bar for each message along one axis of time, its waiting apart from its running.

An ask's bar goes on to the arrival of its answer, so that its length is the round trip.
"""

from rich.console import Group, RenderableType
from rich.text import Text

from exeunt.runtime.trace import Trace

from ..output import ACCENT
from .hops import STYLES, Hop, answers, hops, interval, names, title
from .printable import printable
from .tree import summary

TRAVEL, QUEUE, RUN, LATER = "·", "░", "█", "╌"
TIME_WIDTH = 10


def render(trace: Trace, *, width: int = 80) -> RenderableType:
    """The bars, scaled so that the whole trace fills `width` columns."""
    everything = hops(trace)
    answered = answers(everything)
    folded = {hop.span.id for hop in answered.values()}
    found = [hop for hop in everything if hop.span.id not in folded]
    short = names(trace)
    labels = [f"{'↩ ' if hop.is_answer else ''}{title(hop)} → {printable(short[hop.span.to])}" for hop in found]
    label_width = min(max(map(len, labels)), width // 2)
    bar_width = max(10, width - label_width - TIME_WIDTH - 3)
    total_ms = max(trace.duration_ns / 1e6, 0.001)
    lines = [
        _line(hop, answered.get(hop.span.id), label, label_width, bar_width, total_ms)
        for hop, label in zip(found, labels, strict=True)
    ]
    axis = Text(" " * (label_width + 2) + _axis(bar_width, total_ms), style="dim", no_wrap=True, overflow="ellipsis")
    drawn = "".join(line.plain for line in lines)
    later = f"  {LATER} answered later" if LATER in drawn else ""
    legend = Text(f"{TRAVEL} on its way  {QUEUE} queued  {RUN} running{later}", style="dim")
    return Group(summary(trace), Text(), axis, *lines, Text(), legend)


def _axis(bar_width: int, total_ms: float) -> str:
    """Where the axis begins and ends, and its middle where there is room."""
    end, middle = f"{interval(total_ms)} ┤", f"┼ {interval(total_ms / 2)}"
    axis = list("├ 0".ljust(bar_width - len(end)) + end)
    at = bar_width // 2
    if at + len(middle) + 2 <= bar_width - len(end):
        axis[at : at + len(middle)] = middle
    return "".join(axis)


def _line(  # noqa: PLR0917 - what a line consists of
    hop: Hop, answer: Hop | None, label: str, label_width: int, bar_width: int, total_ms: float
) -> Text:
    cut = label if len(label) <= label_width else f"{label[: label_width - 1]}…"
    style = STYLES.get(hop.span.outcome, "default")
    line = Text(f"{cut:<{label_width}}  ", style=ACCENT, no_wrap=True, overflow="ellipsis")
    strokes = _strokes(hop, answer, total_ms)
    line.append(f"{_bar(strokes, hop.at_ms, bar_width, total_ms):<{bar_width}}", style=style)
    spent = max((end_ms for end_ms, _ in strokes), default=hop.at_ms) - hop.at_ms
    outcome = interval(spent) if hop.span.outcome == "ok" else printable(hop.span.outcome)
    line.append(f" {outcome:>{TIME_WIDTH}}", style="dim" if style == "default" else style)
    return line


def _strokes(hop: Hop, answer: Hop | None, total_ms: float) -> list[tuple[float, str]]:
    """Until when the bar has which stroke, in order of time."""
    ran_ms = hop.ran_ms
    if hop.span.outcome == "pending" and hop.span.started_ns is not None and ran_ms is None:
        ran_ms = total_ms - hop.at_ms  # it was still running when the record was read
    strokes, position = list[tuple[float, str]](), hop.at_ms
    for duration_ms, stroke in ((hop.travelled_ms, TRAVEL), (hop.queued_ms, QUEUE), (ran_ms, RUN)):
        if duration_ms is not None:
            position += duration_ms
            strokes.append((position, stroke))
    if answer is not None and answer.at_ms >= position:
        strokes += [(answer.at_ms, LATER), (answer.at_ms + (answer.travelled_ms or 0.0), TRAVEL)]
    return strokes


def _bar(strokes: list[tuple[float, str]], at_ms: float, bar_width: int, total_ms: float) -> str:
    bar = " " * min(bar_width - 1, round(at_ms / total_ms * bar_width))
    for end_ms, stroke in strokes:
        bar += stroke * (min(bar_width, round(end_ms / total_ms * bar_width)) - len(bar))
    if len(bar.strip()) <= 1:  # too short to be seen still happened
        bar = bar.rstrip(TRAVEL + QUEUE + RUN + LATER) + (
            RUN if any(stroke == RUN for _, stroke in strokes) else TRAVEL
        )
    return bar
