"""Dead letters: what was sent and will never be handled. Counted, kept for a while, listed by `exeunt ps`."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

import msgspec

from .envelope import Envelope

KEPT = 200


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

    def __init__(self, now_ns: Callable[[], int] = time.time_ns) -> None:
        self.total = 0
        """How many there were ever."""
        self.recent: deque[DeadLetter] = deque(maxlen=KEPT)
        """The last ones, oldest first."""
        self._now_ns = now_ns

    def add(self, envelope: Envelope, reason: str) -> DeadLetter:
        """Keep note of one."""
        self.total += 1
        letter = DeadLetter(
            self._now_ns(),
            envelope.sender,
            envelope.to,
            type(envelope.body).__name__,
            envelope.trace,
            envelope.id,
            reason,
        )
        self.recent.append(letter)
        return letter
