"""An event as one line: when, what, of whom, and the facts beside it. It may be of the runtime or of the program."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final, NamedTuple, cast

BAD: Final = frozenset({"ActorEnded", "GaveUp", "WorkerDied", "Disconnected", "AllGatewaysOffline"})
NOTABLE: Final = frozenset(
    {"ChildRestarted", "MailboxFull", "DeadLettered", "StrangerRefused", "ConnectionEnded", "GatewayVersionMismatch"}
)
_LEADING: Final = frozenset({"type", "event", "of", "at", "at_ns", "time", "id"})
_QUIET_REASONS: Final = frozenset({"normal", "shutdown"})


class EventLine(NamedTuple):
    """One event."""

    at_ns: int
    """Unix time."""
    type: str
    of: str
    facts: str
    level: str
    """`ok`, `notable` or `bad`: how much it wants to be looked at."""
    event: dict[str, Any]

    @property
    def clock(self) -> str:
        """Its time of day, UTC."""
        return datetime.fromtimestamp(self.at_ns / 1e9, UTC).strftime("%H:%M:%S")


def event_line(event: dict[str, Any], *, seen_ns: int) -> EventLine:
    """Read an event; `seen_ns` is its time where it carries none."""
    kind = str(event.get("type") or event.get("event") or "event")
    facts = " ".join(f"{key}={_short(value)}" for key, value in event.items() if key not in _LEADING and _says(value))
    return EventLine(_at_ns(event, seen_ns), kind, str(event.get("of") or ""), facts, _level(kind, event), event)


def _at_ns(event: dict[str, Any], seen_ns: int) -> int:
    at_ns = event.get("at_ns")
    if isinstance(at_ns, int) and at_ns > 0:
        return at_ns
    text = event.get("at") or event.get("time")
    if isinstance(text, str):
        try:
            return int(datetime.fromisoformat(text).timestamp() * 1e9)
        except ValueError:
            return seen_ns
    return seen_ns


def _level(kind: str, event: dict[str, Any]) -> str:
    if kind == "ActorEnded" and event.get("reason") in _QUIET_REASONS:
        return "ok"
    if kind in BAD:
        return "bad"
    return "notable" if kind in NOTABLE else "ok"


def _says(value: Any) -> bool:
    return value is not None and value not in ("", [], {})


def _short(value: Any) -> str:
    """A value in a few words."""
    if isinstance(value, dict):
        pairs = cast("dict[str, Any]", value).items()
        return "{" + " ".join(f"{key}={_short(inner)}" for key, inner in pairs if _says(inner)) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_short, cast("list[Any]", value))) + "]"
    return f"{value:g}" if isinstance(value, float) else str(value)
