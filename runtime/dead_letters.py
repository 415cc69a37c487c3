"""Dead letters: what was sent and will never be handled. Counted, kept for a while, listed by `exeunt ps`."""

from __future__ import annotations

import asyncio
import time
from collections import deque

import msgspec

from .envelope import Envelope
from .events import DeadLettered, Event, Events
from .wakeups import call_later

KEPT = 200
_BURST_S = 0.1  # what dies within this, on one way for one reason, is one event


class DeadLetter(msgspec.Struct, frozen=True, array_like=True):
    """One message that nobody handled."""

    at_ns: int
    """CLOCK_REALTIME."""
    sender: str
    to: str
    message: str
    """Its type."""
    trace: int
    id: int
    reason: str
    """Why, in words."""


class DeadLetters:
    """The dead letters of one node. On its loop only."""

    def __init__(self, events: Events, loop: asyncio.AbstractEventLoop) -> None:
        self.total = 0
        """How many there were ever."""
        self.recent: deque[DeadLetter] = deque(maxlen=KEPT)
        """The last ones, oldest first."""
        self._events = events
        self._loop = loop
        self._bursts: dict[tuple[str, str], tuple[DeadLetter, int]] = {}

    def add(self, envelope: Envelope, reason: str) -> None:
        """Keep note of one, and have an event say so."""
        self.total += 1
        message = type(envelope.body).__name__
        letter = DeadLetter(time.time_ns(), envelope.sender, envelope.to, message, envelope.trace, envelope.id, reason)
        self.recent.append(letter)
        if isinstance(envelope.body, Event):
            return  # an event about an event that nobody took would beget another
        key = (envelope.to, reason)
        first, count = self._bursts.get(key, (letter, 0))
        if not self._bursts and not self._loop.is_closed():
            call_later(self._loop, _BURST_S, "dead letters", self.flush)
        self._bursts[key] = (first, count + 1)

    def flush(self) -> None:
        """Publish what has been counted."""
        bursts, self._bursts = self._bursts, {}
        for first, count in bursts.values():
            self._events.publish(
                DeadLettered(first.to, message=first.message, sender=first.sender, reason=first.reason, count=count)
            )
