"""The two lines on top: which program, how it is, and how much goes on in it.

Each part says how much it matters; where a line is too short, those that matter least go.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final, NamedTuple

from rich.text import Text

from ..views.design import state
from ..views.printable import printable, show_duration, size
from .model import Model
from .rows import amount

GAP: Final = "   "


class Part(NamedTuple):
    """Something that the headline says."""

    keep: int
    """The part with the least number goes first."""
    text: Text


def headline(model: Model, *, width: int, now_s: float, now: datetime, paused: bool = False) -> list[Text]:
    """Two lines. The second ends in what is wrong, if anything is."""
    numbers = _totals(model) + (_wrong(model) if model.left is None else [])
    if model.left is not None:
        numbers = [Part(part.keep, Text(part.text.plain, style="dim")) for part in numbers]  # they were so
    return [_joined(_program(model, now_s, now, paused=paused), width), _joined(numbers, width)]


def _program(model: Model, now_s: float, now: datetime, *, paused: bool) -> list[Part]:
    pause = [Part(9, Text("❚❚ paused", style="bold yellow"))] if paused else []
    away = [] if model.left is None else [Part(9, _away(model, now_s))]
    if model.program is None:
        return [Part(9, Text("exeunt", style="bold")), *(away or [Part(9, Text("◐ asking", style="yellow"))]), *pause]
    name = Text.assemble(("exeunt", "dim"), (f" {printable(model.program.version)}", "dim"))
    parts = [Part(2, name), Part(9, Text(printable(model.program.instance), style="bold"))]
    if away:
        return [*parts, *away, *pause]
    parts.append(Part(8, state("running" if model.status is None else model.status.session)))
    parts.append(Part(1, Text(f"pid {model.program.pid}", style="dim")))
    return [*parts, *_up(model.program.started_at, now), *pause, *_tunnel(model)]


def _away(model: Model, now_s: float) -> Text:
    return Text(f"✖ left {show_duration(max(1, round(now_s - model.left_at_s)))} ago; waiting", style="bold red")


def _up(started_at: str | None, now: datetime) -> list[Part]:
    try:
        started = datetime.fromisoformat(started_at or "").replace(tzinfo=UTC)
    except ValueError:
        return []
    return [Part(3, Text(f"up {show_duration(max(1, round((now - started).total_seconds())))}"))]


def _tunnel(model: Model) -> list[Part]:
    if model.status is None:
        return []
    peers = model.peers()
    direct = sum(line.peer.path == "direct" for line in peers)
    parts = [Part(5, Text(f"{direct}/{len(peers)} peers direct") if peers else Text("no peers", style="dim"))]
    received = [line.received.rate for line in peers if line.received.rate is not None]
    sent = [line.sent.rate for line in peers if line.sent.rate is not None]
    if received and sent:
        parts.append(Part(4, Text(f"↓ {size(round(sum(received)))}/s ↑ {size(round(sum(sent)))}/s")))
    return parts


def _totals(model: Model) -> list[Part]:
    if model.actor_rows is None:
        return []
    totals = model.totals()
    parts = [Part(5, Text(f"{totals.actors} actor{'' if totals.actors == 1 else 's'}"))]
    if totals.messages_rate is not None:
        parts.append(Part(6, Text(f"{amount(totals.messages_rate)} msg/s")))
    parts.append(Part(4, Text(f"queued {amount(totals.queued)}", style="yellow" if totals.queued else "")))
    parts.append(Part(3, Text(f"restarts {totals.restarts}", style="yellow" if totals.restarts else "")))
    if totals.cpu_percent is not None:
        parts.append(Part(2, Text(f"cpu {totals.cpu_percent:.0f} %")))
    if totals.rss_bytes is not None:
        parts.append(Part(1, Text(size(totals.rss_bytes))))
    return parts


def _wrong(model: Model) -> list[Part]:
    problems = [problem.message for problem in model.status.problems] if model.status is not None else []
    problems += [f"{command}: {why}" for command, why in model.troubles.items()]
    if not problems:
        return []
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return [Part(9, Text(f"! {printable(problems[0])}{more}", style="yellow"))]


def _joined(parts: list[Part], width: int) -> Text:
    kept = list(parts)
    while len(kept) > 1 and sum(part.text.cell_len + len(GAP) for part in kept) - len(GAP) > width:
        kept.remove(min(kept, key=lambda part: part.keep))
    line = Text(GAP, no_wrap=True, overflow="ellipsis", end="").join(part.text for part in kept)
    line.truncate(width, overflow="ellipsis")
    return line
