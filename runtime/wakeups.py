"""What wakes an event loop, by cause.

An idle process sleeps until somebody outside has something for it, or a timer is due; each of that is counted here
under a name: `udp`, `zeromq`, `device`; `timer:consent check`. A reading counts once, whatever it brings; what is
called in the same turn as its consequence does not count. A timer has the name of what it was set for, also where that
has moved meanwhile: it was what woke us.

So descriptors and timers of the loop are asked for with these functions and no others, which a test of the architecture
checks. Timers of libraries (`asyncio.sleep` and the like) are named by the loop itself after the coroutine that set
them, where it is one of `new_event_loop`.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVarTuple, cast
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    _AnyLoop = asyncio.BaseEventLoop
else:
    _AnyLoop = object

_Ts = TypeVarTuple("_Ts")


class Wakeups:
    """How often an event loop was woken, by cause. On its loop only, but for looking."""

    def __init__(self) -> None:
        self._counts: defaultdict[str, int] = defaultdict(int)
        self._began = time.monotonic()

    @property
    def counts(self) -> dict[str, int]:
        """How often, by cause, as it is now. From any thread."""
        return dict(self._counts)

    @property
    def over_s(self) -> float:
        """For how many seconds it has been counted."""
        return time.monotonic() - self._began

    def count(self, cause: str) -> None:
        """Note that this woke the loop."""
        self._counts[cause] += 1

    def hearing(self, cause: str, call: Callable[[*_Ts], object]) -> Callable[[*_Ts], None]:
        """Return what counts, and then calls. It runs for each reading, so it is a closure: the cheapest there is."""
        counts = self._counts

        def hear(*args: *_Ts) -> None:
            counts[cause] += 1
            call(*args)

        return hear

    def due(self, reason: str, call: Callable[..., object], args: tuple[Any, ...]) -> None:
        """A timer woke the loop: call who set it."""
        self._counts[f"timer:{reason}"] += 1
        call(*args)


_ALL: WeakKeyDictionary[asyncio.AbstractEventLoop, Wakeups] = WeakKeyDictionary()


def wakeups_of(loop: asyncio.AbstractEventLoop) -> Wakeups:
    """Return what counts for a loop."""
    found = _ALL.get(loop)
    return found if found is not None else _ALL.setdefault(loop, Wakeups())


def add_reader(
    loop: asyncio.AbstractEventLoop, descriptor: int, cause: str, call: Callable[..., object], *args: Any
) -> None:
    """Call when there is something to read, and count it under this cause. `loop.remove_reader` ends it."""
    loop.add_reader(descriptor, wakeups_of(loop).hearing(cause, call), *args)


def add_writer(
    loop: asyncio.AbstractEventLoop, descriptor: int, cause: str, call: Callable[..., object], *args: Any
) -> None:
    """Call when there is room to write, and count it under this cause. `loop.remove_writer` ends it."""
    loop.add_writer(descriptor, wakeups_of(loop).hearing(cause, call), *args)


def call_later(
    loop: asyncio.AbstractEventLoop, delay_s: float, reason: str, call: Callable[..., object], *args: Any
) -> asyncio.TimerHandle:
    """Call after a delay, and count it as `timer:` and the reason."""
    return loop.call_later(delay_s, wakeups_of(loop).due, reason, call, args)


def call_at(
    loop: asyncio.AbstractEventLoop,
    when_s: float,
    reason: str,
    call: Callable[..., object],
    *args: Any,
    context: contextvars.Context | None = None,
) -> asyncio.TimerHandle:
    """Call at a time of the loop's clock, and count it as `timer:` and the reason."""
    return loop.call_at(when_s, wakeups_of(loop).due, reason, call, args, context=context)


def new_event_loop() -> asyncio.AbstractEventLoop:
    """Return a uvloop loop where it is installed (a datagram costs a fifth of the stock loop's), else asyncio's own.

    It counts whatever wakes it, but for what arrives on a stream: there its protocol counts.
    """
    return cast("asyncio.AbstractEventLoop", type("Loop", (_NamingLoop, _kind_of_loop()), {})())


def _kind_of_loop() -> type:
    try:
        import uvloop  # absent on Windows
    except ImportError:
        if sys.platform == "win32":
            return asyncio.ProactorEventLoop
        return asyncio.SelectorEventLoop
    return uvloop.Loop


class _NamingLoop(_AnyLoop):
    """The part of a loop that names the timers of libraries, and what other threads want."""

    def call_later(
        self, delay: float, callback: Callable[[*_Ts], object], *args: *_Ts, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        """As asyncio has it. uvloop's `call_at` comes by here."""
        if _is_counted(callback):
            return super().call_later(delay, callback, *args, context=context)
        return super().call_later(delay, wakeups_of(self).due, self._reason(callback), callback, args, context=context)

    def call_at(
        self, when: float, callback: Callable[[*_Ts], object], *args: *_Ts, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        """As asyncio has it. Its own `call_later` comes by here."""
        if _is_counted(callback):
            return super().call_at(when, callback, *args, context=context)
        return super().call_at(when, wakeups_of(self).due, self._reason(callback), callback, args, context=context)

    def call_soon_threadsafe(
        self, callback: Callable[[*_Ts], object], *args: *_Ts, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        """As asyncio has it."""
        return super().call_soon_threadsafe(wakeups_of(self).hearing("thread", callback), *args, context=context)

    def _reason(self, callback: Callable[..., Any]) -> str:
        """Name a timer after what it calls; one of asyncio's after the coroutine that waits."""
        if str(getattr(callback, "__module__", "")).startswith("asyncio."):
            task = asyncio.current_task(self)
            if task is not None:
                return str(getattr(task.get_coro(), "__qualname__", "task"))
        return str(getattr(callback, "__qualname__", type(callback).__name__))


def _is_counted(callback: Callable[..., Any]) -> bool:
    return isinstance(getattr(callback, "__self__", None), Wakeups)
