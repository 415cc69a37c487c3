"""The event stream: what happens to actors, workers and messages, for whoever wants to look.

Each node publishes to its own `Events`. A worker passes its events on to the supervisor, whose stream therefore has
those of the whole program; the control socket gives them to `exeunt events` and to every view. An event is a fact, in
the past tense; nobody answers one, and a stream that nobody listens to costs nothing.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from .envelope import Message

logger = logging.getLogger(__name__)

KEPT = 500  # events that a view which opens later can still show


def _tag(name: str) -> str:
    return f"exeunt.event.{name}/1"


class Event(Message, frozen=True, tag=_tag):
    """Something that happened. `of` says to whom: an address, a worker, or a supervisor's name."""

    of: str
    at_ns: int = 0
    """CLOCK_REALTIME; filled in by whoever publishes, if 0."""


class ActorStarted(Event, frozen=True):
    """An actor's `on_start` has run."""

    kind: str = ""
    """Its class."""
    incarnation: int = 0


class ActorEnded(Event, frozen=True):
    """An actor has ended."""

    reason: str = ""
    error: str = ""
    """`Type: message` of what it crashed with."""
    incarnation: int = 0


class ChildRestarted(Event, frozen=True):
    """A supervisor has started a child again."""

    reason: str = ""
    restarts: int = 0
    """How often so far."""
    delay_s: float = 0.0


class GaveUp(Event, frozen=True):
    """A supervisor has seen too many restarts, and escalates."""

    child: str = ""


class WorkerStarted(Event, frozen=True):
    """A worker listens."""

    pid: int = 0
    epoch: int = 0


class WorkerDied(Event, frozen=True):
    """A worker has ended and was not asked to."""

    reason: str = ""
    pid: int = 0


class MailboxFull(Event, frozen=True):
    """A mailbox has reached its bound. Said once, and again only after it has been half empty."""

    bound: int = 0
    policy: str = ""


class DeadLettered(Event, frozen=True):
    """Messages could not be delivered, or were not handled. Bursts are counted together."""

    message: str = ""
    """The type of the first one."""
    sender: str = ""
    reason: str = ""
    count: int = 1


class StrangerRefused(Event, frozen=True):
    """Somebody whose key is not on the allow-list tried to connect, or a frame could not be read."""

    reason: str = ""


EVENTS: tuple[type[Event], ...] = (
    ActorStarted,
    ActorEnded,
    ChildRestarted,
    GaveUp,
    WorkerStarted,
    WorkerDied,
    MailboxFull,
    DeadLettered,
    StrangerRefused,
)

Listener = Callable[[Event], None]


class Events:
    """The stream of one node. On its loop only."""

    def __init__(self, now_ns: Callable[[], int] = time.time_ns) -> None:
        self.recent: deque[Event] = deque(maxlen=KEPT)
        """The last ones, oldest first."""
        self._listeners: list[Listener] = []
        self._now_ns = now_ns

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Call `listener` with each event from now on; return what takes that back. One that raises is logged."""
        self._listeners.append(listener)

        def unsubscribe() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)

        return unsubscribe

    def publish(self, event: Event) -> None:
        """Tell everybody who listens."""
        if not event.at_ns:
            event = _stamped(event, self._now_ns())
        self.recent.append(event)
        for listener in list(self._listeners):
            try:
                listener(event)
            except Exception:
                logger.exception("A listener failed", extra={"event": "listener_failed"})


def _stamped(event: Event, at_ns: int) -> Event:
    fields: dict[str, Any] = {name: getattr(event, name) for name in event.__struct_fields__}
    fields["at_ns"] = at_ns
    return type(event)(**fields)
