"""How the lines of each pane look: their columns, their cells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.text import Text

from ..output import ACCENT
from ..views.design import state
from ..views.printable import dash, milliseconds, printable, show_duration, size
from .event_line import EventLine
from .grid import Column, Grid
from .meter import sparkline
from .model import ActorLine, PeerLine
from .tree_line import TreeLine

ACTOR_COLUMNS: Final = (
    Column("ACTOR", 15, grows=True, most=40),
    Column("WORKER", 10, keep=8),
    Column("STATE", 10),
    Column("MSG/S", 7, right=True),
    Column("TREND", 10, keep=6, grows=True, most=60),
    Column("QUEUE", 5, right=True),
    Column("HANDLED", 8, right=True, keep=4),
    Column("RESTARTS", 8, right=True, keep=7),
    Column("FOR", 8, right=True, keep=5),
    Column("CPU", 5, right=True, keep=3),
    Column("MEMORY", 8, right=True, keep=2),
)
PEER_COLUMNS: Final = (
    Column("PEER", 10, grows=True, most=30),
    Column("PATH", 8),
    Column("RTT", 7, right=True),
    Column("RECEIVED", 11, right=True),
    Column("SENT", 11, right=True),
    Column("ENDPOINT", 21, keep=6, grows=True, most=47),
    Column("HANDSHAKE", 9, right=True, keep=4),
    Column("TREND", 10, keep=5, grows=True, most=60),
)
EVENT_COLUMNS: Final = (
    Column("UTC", 8),
    Column("EVENT", 19, keep=9, grows=True, most=22),
    Column("OF", 16, keep=8, grows=True, most=26),
    Column("FACTS", 20, keep=7, grows=True),
)
TREE_COLUMNS: Final = (Column("TREE", 10, grows=True),)

LEVELS: Final = {"ok": ACCENT, "notable": "yellow", "bad": "red"}


def actor(line: ActorLine, grid: Grid) -> Sequence[Text]:
    """An actor's cells."""
    row, meter = line.row, line.meter
    return (
        Text(printable(line.name), style=ACCENT),
        Text(printable(row.worker)),
        state(line.state),
        rate(meter.rate),
        Text(sparkline(meter.history, grid.width_of("TREND")), style="blue"),
        Text(amount(row.mailbox), style="yellow" if row.mailbox else "dim"),
        Text(amount(row.handled_total)),
        Text(amount(row.restarts), style="yellow" if row.restarts else "dim"),
        Text(show_duration(round(row.since_s)) if row.since_s >= 1 else "< 1 s"),
        Text("–" if row.cpu_percent is None else f"{row.cpu_percent:.0f} %", style="dim"),
        Text(size(row.rss_bytes), style="dim"),
    )


def peer(line: PeerLine, grid: Grid) -> Sequence[Text]:
    """A peer's cells."""
    one = line.peer
    age = None if one.handshake_age_s is None else show_duration(one.handshake_age_s)
    return (
        Text(printable(one.peer), style=ACCENT),
        state(one.path),
        Text(milliseconds(one.rtt_ms)),
        bytes_rate(line.received.rate),
        bytes_rate(line.sent.rate),
        Text(dash(one.endpoint)),
        Text(dash(age), style="dim"),
        Text(sparkline(line.history, grid.width_of("TREND")), style="blue"),
    )


def event(line: EventLine, _grid: Grid) -> Sequence[Text]:
    """An event's cells."""
    return (
        Text(line.clock, style="dim"),
        Text(line.type, style=LEVELS[line.level]),
        Text(printable(within(line.of))),
        Text(printable(line.facts), style="dim"),
    )


def node(line: TreeLine, _grid: Grid) -> Sequence[Text]:
    """A node of the tree: its mark, its name, what is unusual about it."""
    one = line.node
    text = Text(line.branch, style="dim")
    text.append_text(state(one.state, with_word=False))
    style = ACCENT if one.kind == "actor" else "bold"
    text.append(f" {printable(one.name)}", style=f"not dim {style}")
    details = [printable(one.state)] if one.state != "running" else []
    details += [printable(one.strategy)] if one.strategy else []
    details += [str(one.pid)] if one.pid is not None else []
    if details:
        text.append(f" {' · '.join(details)}", style="dim")
    return (text,)


def within(address: str) -> str:
    """An address without its node, which is the program's name; anything else as it is."""
    return address.partition("/")[2] if address.count("/") == 2 else address


def rate(value: float | None) -> Text:
    """Messages a second."""
    if value is None:
        return Text("–", style="dim")
    return Text(amount(value), style="" if value > 0 else "dim")


def bytes_rate(value: float | None) -> Text:
    """Bytes a second."""
    if value is None:
        return Text("–", style="dim")
    return Text(f"{size(round(value))}/s", style="" if value > 0 else "dim")


def amount(value: float) -> str:
    """A number in at most six characters: `0`, `0.4`, `12`, `8812`, `12.5k`, `3.1M`."""
    if value < 10:
        return f"{value:.1f}".removesuffix(".0")
    if value < 10_000:
        return f"{value:.0f}"
    thousands = value / 1000
    for unit in ("k", "M", "G"):
        if thousands < 1000 or unit == "G":
            break
        thousands /= 1000
    return f"{thousands:.1f}".removesuffix(".0") + unit if thousands < 100 else f"{thousands:.0f}{unit}"
