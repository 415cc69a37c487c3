"""When to ask the portal for a restart of ICE (RFC 8445 section 9). Pure.

A restart needs new credentials on both sides, so the portal begins it, for both at once; either may ask. Silence asks
once and waits: a search that is under way is the answer. A change of this host's network asks anew even then, because
a search that began before the change looks from addresses that are gone.

The portal answers in a round trip. When it doesn't, what broke the path has probably broken our link to it as well,
and TCP takes its time to find out: the link is doubted, and the wish told again, to wait for the next link.
"""

from __future__ import annotations

from typing import Final

import msgspec

from ..timing import RESTART_ANSWER_S, RESTART_REPEAT_S, RESTART_S, RESTART_SPACING_S

REASON_CHARS: Final = 64
"""Of a reason; the portal takes no more."""


class RestartWanted(msgspec.Struct, frozen=True):
    """Ask the portal for a restart; `again`: it has not answered, so doubt the link to it."""

    reason: str
    again: bool = False


class Restarts:
    """The restarts of one connection. All times are seconds of one monotonic clock."""

    def __init__(self) -> None:
        self.generation = 0
        """Of the newest ICE session: 0 is the first."""
        self._asked_at: float | None = None
        self._busy_until: float | None = None
        self._unanswered: tuple[str, float] | None = None
        self._postponed: tuple[str, float] | None = None
        self._events: list[RestartWanted] = []  # an empty deque has 700 bytes

    @property
    def is_under_way(self) -> bool:
        """Whether a restart has begun and is not over."""
        return self._busy_until is not None

    def handle_wanted(self, reason: str, now: float, *, moved: bool = False) -> None:
        """Somebody wants another path; `moved`: because this host's network is another one."""
        if self._asked_at is not None and now < self._asked_at + RESTART_SPACING_S:
            if moved and self._postponed is None:
                self._postponed = reason, self._asked_at + RESTART_SPACING_S
        elif moved or not (self._is_busy(now) or self._is_waiting(now)):
            self._ask(reason, now)

    def handle_began(self, generation: int, now: float) -> bool:
        """The portal says that a restart has begun; False when it is an old one's echo."""
        if generation <= self.generation:
            return False
        self.generation = generation
        self._asked_at, self._unanswered = now, None
        self._busy_until = now + RESTART_S
        return True

    def handle_over(self, generation: int) -> None:
        """A restart has found a path, or failed."""
        if generation == self.generation:
            self._asked_at = self._busy_until = None

    def handle_timeout(self, now: float) -> None:
        """Ask for what was postponed, and once more for what was not answered."""
        if self._postponed is not None and now >= self._postponed[1]:
            self._ask(self._postponed[0], now)
        elif self._unanswered is not None and now >= self._unanswered[1]:
            self._events.append(RestartWanted(self._unanswered[0], again=True))
            self._unanswered = None

    def poll_event(self) -> RestartWanted | None:
        """Return what to ask for, or None."""
        return self._events.pop(0) if self._events else None

    def poll_timeout(self) -> tuple[float, str] | None:
        """Return when to call `handle_timeout`, and why."""
        due = [one[1] for one in (self._postponed, self._unanswered) if one is not None]
        return (min(due), "a restart is due") if due else None

    def _ask(self, reason: str, now: float) -> None:
        self._asked_at, self._postponed = now, None
        self._unanswered = reason, now + RESTART_ANSWER_S
        self._events.append(RestartWanted(reason))

    def _is_busy(self, now: float) -> bool:
        return self._busy_until is not None and now < self._busy_until

    def _is_waiting(self, now: float) -> bool:
        return self._asked_at is not None and now < self._asked_at + RESTART_REPEAT_S
