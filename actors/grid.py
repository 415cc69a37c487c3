"""Wake-ups on a grid: a gateway looks after thousands of idle connections, and need not wake up for each of them.

A timer that is far away is set a little too early, to the next point of a grid before it, where others meet it. Mostly
it is put off again there, as the peer has shown meanwhile that it lives; where not, it is near by then, and exact.

All who meet at a point share one timer of the event loop. With one each they would come a millisecond apart, since the
loop rounds, and take 400 bytes more.
"""

import asyncio
import contextvars
from collections.abc import Callable
from typing import Protocol
from weakref import WeakKeyDictionary

from exeunt.runtime.wakeups import call_at, call_later

COARSE_AFTER_S, COARSE_S = 1.0, 0.25


class Wake(Protocol):
    """A wake-up that is to come."""

    def cancel(self) -> None:
        """Wake nobody. Idempotent."""


def meet(
    loop: asyncio.AbstractEventLoop, delay_s: float, reason: str, call: Callable[..., object], *args: object
) -> tuple[Wake, float]:
    """Call somebody after a delay, or a little before, with others; return what cancels it, and the delay that it has.

    On the loop's thread. A point is counted as a wake-up for the reason of the first who is to be there.
    """
    if delay_s <= COARSE_AFTER_S:
        return call_later(loop, delay_s, reason, call, *args), delay_s
    grid = _GRIDS.get(loop)
    if grid is None:
        grid = _GRIDS[loop] = _Grid()
    return grid.meet(loop, delay_s, reason, call, args)


def meet_late(
    loop: asyncio.AbstractEventLoop, delay_s: float, reason: str, call: Callable[..., object], *args: object
) -> Wake:
    """Call somebody after a delay, or up to `COARSE_S` later, with others; return what cancels it."""
    grid = _GRIDS.get(loop)
    if grid is None:
        grid = _GRIDS[loop] = _Grid()
    return grid.meet(loop, delay_s + COARSE_S, reason, call, args)[0]


class _Appointment:
    """One who is to be called at a point."""

    __slots__ = ("args", "call")

    def __init__(self, call: Callable[..., object], args: tuple[object, ...]) -> None:
        self.call: Callable[..., object] | None = call
        self.args = args

    def cancel(self) -> None:
        self.call, self.args = None, ()


class _Grid:
    """The points of one event loop where somebody is expected."""

    def __init__(self) -> None:
        self._points: dict[int, list[_Appointment]] = {}

    def meet(
        self,
        loop: asyncio.AbstractEventLoop,
        delay_s: float,
        reason: str,
        call: Callable[..., object],
        args: tuple[object, ...],
    ) -> tuple[Wake, float]:
        now = loop.time()
        point = int((now + delay_s) / COARSE_S)
        there = self._points.get(point)
        if there is None:
            there = self._points[point] = []
            call_at(loop, point * COARSE_S, reason, self._arrive, loop, point, context=contextvars.Context())
        there.append(_Appointment(call, args))
        return there[-1], point * COARSE_S - now

    def _arrive(self, loop: asyncio.AbstractEventLoop, point: int) -> None:
        for one in self._points.pop(point, ()):
            call, args = one.call, one.args
            if call is None:
                continue
            one.cancel()
            try:
                contextvars.Context().run(call, *args)  # on nobody's behalf: what it brings begins a trace of its own
            except Exception as error:  # noqa: BLE001 - as the loop does it: the others are called all the same
                loop.call_exception_handler({"message": "A wake-up on the grid failed", "exception": error})


_GRIDS: WeakKeyDictionary[asyncio.AbstractEventLoop, _Grid] = WeakKeyDictionary()
