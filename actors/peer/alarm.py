"""The one timer of a connection's machine on the loop: it wakes in time, and is set anew as seldom as can be."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from exeunt.runtime.wakeups import call_later

from ..grid import Wake, meet

THICK = 8
LOOK_S = 0.02
"""Where more packets than so many come within so long, what is due is looked up once in that time."""


class Alarm:
    """Calls when it is time, or a little before: with `is_coarse`, distant times are where others meet.

    It knows whom to call only while it is set, so that an owner who has cancelled it is no cycle.
    """

    def __init__(self, *, is_coarse: bool) -> None:
        self._is_coarse = is_coarse
        self._timer: Wake | None = None
        self.at = 0.0
        """When it was last set to; monotonic seconds."""
        self._looked_at = 0.0
        self._looks = 0

    def set(
        self, loop: asyncio.AbstractEventLoop, timeout: tuple[float, str], now: float, wake: Callable[[], None]
    ) -> None:
        """Have `wake` called in time, which is when and why. A timer that comes too early stays: one look is less than
        two calls a packet.
        """
        due, reason = timeout
        if self._timer is not None and self.at <= due:
            return
        self.cancel()
        delay_s = max(0.0, due - now)
        if self._is_coarse:
            self._timer, delay_s = meet(loop, delay_s, reason, self.ring, wake)
            self.at = min(due, now + delay_s)
        else:
            self._timer, self.at = call_later(loop, delay_s, reason, self.ring, wake), due

    def may_wait(self, loop: asyncio.AbstractEventLoop, now: float, wake: Callable[[], None]) -> bool:
        """Say whether a packet that has just come or gone need not have what is due looked up, because many do. Then
        `wake` is called within `LOOK_S`, so nothing is later than that.
        """
        if now - self._looked_at >= LOOK_S:
            self._looked_at, self._looks = now, 0
        self._looks += 1
        if self._looks <= THICK:
            return False
        self.set(loop, (self._looked_at + LOOK_S, "thick traffic"), now, wake)
        return True

    def ring(self, wake: Callable[[], None]) -> None:
        """It is time."""
        self.cancel()
        wake()

    def cancel(self) -> None:
        """Wake nobody. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
