"""An actor's timers: messages to itself, later. They end with it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from .context import CURRENT
from .envelope import Message
from .wakeups import call_at

if TYPE_CHECKING:
    from .life import Life


class Timer:
    """One timer of an actor; `Actor.after` and `Actor.every` make it."""

    __slots__ = ("_actor", "_due_s", "_handle", "_message", "_over", "_period_s", "skipped_total")

    def __init__(self, actor: Life, message: Message, delay_s: float, period_s: float | None) -> None:
        self._actor = actor
        self._message = message
        self._period_s = period_s
        self.skipped_total = 0
        """Of a periodic one: how often it was due while its last message still waited."""
        self._due_s = actor.node.loop.time() + delay_s
        self._handle: asyncio.TimerHandle | None = None
        self._over = False
        self._on_loop(self._begin)

    @property
    def pending(self) -> bool:
        """Whether its message is still to come."""
        return not self._over

    def cancel(self) -> None:
        """No message comes any more, but for one that waits in the mailbox already. Idempotent."""
        self._over = True
        self._on_loop(self._end)

    def _on_loop(self, action: Callable[[], None]) -> None:
        node = self._actor.node
        if threading.get_ident() == node.thread:
            action()
        else:  # a BlockingActor's
            node.hop(action)

    def _begin(self) -> None:
        if self._actor.state == "exited":
            self._over = True
        elif not self._over:
            self._set(self._actor.node.loop)
            self._actor.timers.add(self)

    def _end(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
            self._actor.timers.discard(self)

    def _due(self) -> None:
        CURRENT.set(None)  # what a timer brings begins a trace of its own
        if self._over or self._actor.mailbox.draining:  # which takes no more
            self.cancel()
            return
        if self._period_s is None:
            self.cancel()
            self._actor.node.tell_self(self._actor, self._message)
            return
        if self._actor.mailbox.ordinary and any(one.body is self._message for one in self._actor.mailbox.ordinary):
            self.skipped_total += 1  # a tick that is behind is one tick, not a queue of them
        else:
            self._actor.node.tell_self(self._actor, self._message)
        loop = self._actor.node.loop
        self._due_s = max(self._due_s + self._period_s, loop.time())
        self._set(loop)

    def _set(self, loop: asyncio.AbstractEventLoop) -> None:
        self._handle = call_at(loop, self._due_s, type(self._message).__name__, self._due)
