"""An event as one line: when, to whom, what, and the facts beside it."""

from collections.abc import Mapping
from typing import Any, Final

from rich.text import Text

from ..inspection_contract import EventRow
from ..output import ACCENT
from .printable import clock, printable

_STYLES: Final = {
    "ActorStarted": ("●", "green"),
    "WorkerStarted": ("●", "green"),
    "ConnectionEstablished": ("●", "green"),
    "ActorEnded": ("○", ""),
    "ConnectionEnded": ("○", ""),
    "ChildRestarted": ("◐", "yellow"),
    "MailboxFull": ("◐", "yellow"),
    "DeadLettered": ("◐", "yellow"),
    "GaveUp": ("✖", "red"),
    "WorkerDied": ("✖", "red"),
    "StrangerRefused": ("✖", "red"),
    "Disconnected": ("✖", "red"),
}
"""A shape and a colour for each type; any other has a dot."""

_TYPE_WIDTH = 15  # that of most


def render(event: EventRow) -> Text:
    """One line."""
    return text_of({"type": event.type, "at": event.at, "of": event.of, **event.fields})


def text_of(event: Mapping[str, Any], *, with_of: bool = True) -> Text:
    """One line; without `of` where everybody knows of whom it is."""
    kind = str(event.get("type", ""))
    mark, style = _STYLES.get(kind, ("·", ""))
    if kind == "ActorEnded" and event.get("error"):
        mark, style = "✖", "red"
    line = Text(f"{clock(str(event.get('at', '')), digits=3)} ", style="dim", overflow="fold")
    line.append(f"{mark} {printable(kind):<{_TYPE_WIDTH}}", style=f"not dim {style}".strip())
    if with_of and event.get("of"):
        line.append(f" {printable(event['of'])}", style=f"not dim {ACCENT}")
    # What may be long comes last.
    for key, value in sorted(event.items(), key=lambda item: item[0] == "error"):
        if key not in {"type", "at", "of"} and value not in ("", None):
            line.append(f"  {printable(key)}={_value(key, value)}", style="dim")
    return line


def _value(key: str, value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) and key.endswith("_s") else printable(value)
