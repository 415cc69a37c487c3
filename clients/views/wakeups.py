"""What woke each worker, and how often."""

from collections.abc import Iterable, Mapping, Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from ..inspection_contract import Wakeups
from .design import heading, table
from .printable import printable, show_duration

_MINUTE_S = 60.0


def render(workers: Sequence[Wakeups]) -> RenderableType:
    """For each worker its causes, the most frequent first."""
    parts: list[RenderableType] = []
    for one in workers:
        total = sum(one.counts.values())
        words = f"{printable(one.worker)}  {total} wake-ups in {show_duration(one.over_s)}"
        parts += [Text()] if parts else []
        parts += [heading(words), _table(one.counts, one.over_s)]
    return Group(*parts) if parts else Text("No worker answers.", style="dim")


def _table(counts: Mapping[str, int], over_s: float) -> RenderableType:
    columns = table("CAUSE", "COUNT", "PER MINUTE", right={"COUNT", "PER MINUTE"})
    for cause, count in counts.items():
        columns.add_row(printable(cause), str(count), per_minute(count, over_s))
    return columns


def per_minute(count: int, over_s: float) -> str:
    """How often that is in a minute."""
    return f"{count * _MINUTE_S / over_s:.1f}" if over_s > 0 else "–"


def in_short(one: Wakeups, most: int = 3) -> str:
    """The most frequent causes, in a line."""
    causes: Iterable[tuple[str, int]] = list(one.counts.items())[:most]
    words = [f"{printable(cause)} {per_minute(count, one.over_s)}" for cause, count in causes]
    return " · ".join([f"{per_minute(sum(one.counts.values()), one.over_s)} a minute", *words])
