"""Time for tests: it stands until it is moved by hand, or, below `run`, jumps to the next thing that is due.

The jump is trio's autojump: on a loop where nobody can go on before some time has passed, waiting for that time is
a waste, so it passes at once. A test of an hour's patience takes no time, and always goes the same way.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import selectors
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar

T = TypeVar("T")

_DEADLOCK_S = 5.0  # real seconds in which a thread or a socket may still wake a loop that has nothing else to wait for


class FakeAlarm:
    """A call that is due at some time (an `Alarm`)."""

    __slots__ = ("args", "callback", "cancelled")

    def __init__(self, callback: Callable[..., object], args: tuple[object, ...]) -> None:
        self.callback = callback
        self.args = args
        self.cancelled = False

    def cancel(self) -> None:
        """Don't do it."""
        self.cancelled = True


class FakeClock:
    """A clock (see `exeunt.runtime.clock`) that begins at `start_s` and moves only by `advance`, or below `run`."""

    def __init__(self, start_s: float = 0.0) -> None:
        self._now_s = start_s
        self._due: list[tuple[float, int, FakeAlarm]] = []
        self._count = itertools.count()

    def monotonic_s(self) -> float:
        """Return what time it is."""
        return self._now_s

    def call_later(self, delay_s: float, callback: Callable[..., object], *args: object) -> FakeAlarm:
        """Have the callback called when time has moved that far."""
        alarm = FakeAlarm(callback, args)
        heapq.heappush(self._due, (self._now_s + max(0.0, delay_s), next(self._count), alarm))
        return alarm

    @property
    def next_due_s(self) -> float | None:
        """When the next call is due; None when there is none."""
        while self._due and self._due[0][2].cancelled:
            heapq.heappop(self._due)
        return self._due[0][0] if self._due else None

    def advance(self, seconds: float) -> None:
        """Let time pass: make the calls that become due, in order, each at its own time. Raises ValueError for a
        negative time, and whatever a call raises.
        """
        if seconds < 0:
            raise ValueError("time does not go backwards")
        until_s = self._now_s + seconds
        while (due_s := self.next_due_s) is not None and due_s <= until_s:
            _, _, alarm = heapq.heappop(self._due)
            self._now_s = max(self._now_s, due_s)
            alarm.callback(*alarm.args)
        self._now_s = until_s

    def run(self, main: Coroutine[Any, Any, T], *, threshold_s: float = 0.0) -> T:
        """Run a coroutine on a loop of its own that lives by this clock, as `asyncio.run` does; return its result.

        `asyncio.sleep`, timeouts and every timer on that loop take no real time. Where threads or sockets take part,
        give `threshold_s`: for so many real seconds the loop must have been idle before time jumps. Raises
        RuntimeError when everybody waits and nothing will ever wake anybody.
        """
        with asyncio.Runner(loop_factory=lambda: _Loop(self, threshold_s)) as runner:
            return runner.run(main)


class _Loop(asyncio.SelectorEventLoop):
    """An event loop that lives by a fake clock."""

    def __init__(self, clock: FakeClock, threshold_s: float) -> None:
        self._clock = clock
        super().__init__(_Selector(clock, threshold_s))

    def time(self) -> float:
        """Return the fake time."""
        return self._clock.monotonic_s()


class _Selector(selectors.BaseSelector):
    """Where an event loop waits: so here, instead of waiting, time is moved."""

    def __init__(self, clock: FakeClock, threshold_s: float) -> None:
        self._clock = clock
        self._threshold_s = threshold_s
        self._real = selectors.DefaultSelector()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return what is ready; if nothing is, let the time pass that the loop wants to wait."""
        ready = self._real.select(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        due_s = self._clock.next_due_s
        waits = [] if timeout is None else [timeout]
        if due_s is not None:
            waits.append(max(0.0, due_s - self._clock.monotonic_s()))
        ready = self._real.select(self._threshold_s if waits else _DEADLOCK_S)
        if ready:
            return ready
        if not waits:
            raise RuntimeError("everybody waits, and neither time nor anything else will wake anybody")
        self._clock.advance(min(waits))
        return []

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        """As the real one."""
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        """As the real one."""
        return self._real.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        """As the real one."""
        return self._real.modify(fileobj, events, data)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        """As the real one."""
        return self._real.get_map()

    def close(self) -> None:
        """As the real one."""
        self._real.close()
