"""One frame as plain lines, for `exeunt top --once`: for scripts, pipes, and terminals that are no more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.text import Text

from . import rows
from .facts import STATUS
from .filter import Filter
from .grid import Column, Grid
from .headline import headline
from .model import EVERYTHING, Model, Order

_MOVING = frozenset({"TREND"})  # two looks have no history


def frame(
    model: Model,
    *,
    width: int,
    now_s: float,
    now: datetime | None = None,
    order: Order = "rate",
    shown: Filter = EVERYTHING,
    events: int = 10,
) -> Text:
    """The headline, then actors, peers and events, each below a heading; what there is none of is left out."""
    lines = headline(model, width=width, now_s=now_s, now=now or datetime.now(UTC))
    lines += _part(rows.ACTOR_COLUMNS, rows.actor, model.actors(order, shown), width)
    if STATUS not in model.absent:
        lines += _part(rows.PEER_COLUMNS, rows.peer, model.peers(shown), width)
    lines += _part(rows.EVENT_COLUMNS, rows.event, model.events(shown)[:events], width)
    for line in lines:
        line.rstrip()
    return Text("\n").join(lines)


def _part(
    columns: Sequence[Column], cells: Callable[[Any, Grid], Sequence[Text]], lines: Sequence[Any], width: int
) -> list[Text]:
    if not lines:
        return []
    grid = Grid.fit(columns, width, without=_MOVING)
    return [Text(), grid.head(), *(grid.line(cells(line, grid)) for line in lines)]
