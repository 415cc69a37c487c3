"""The mailbox of one actor: bounded, two lanes, closed exactly once.

It lives on its worker's loop and is touched from that thread only; this is what closes pykka's race between `put` and
`stop`: after `close` nothing can slip in, and what was inside is handed back to be answered or counted as dead letters.
System messages (stop) do not wait behind ordinary ones and are not bounded: only the runtime sends them.
"""

from __future__ import annotations

import asyncio
from collections import deque

from .envelope import Envelope

DEFAULT_BOUND = 10_000  # messages; a few MB of typical ones


class Mailbox:
    """Envelopes waiting for one actor. Implements pykka's `ActorInbox` (`put`, `get`, `empty`)."""

    __slots__ = ("_ordinary", "_system", "_waiter", "bound", "closed", "rejected_total")

    def __init__(self, bound: int = DEFAULT_BOUND) -> None:
        self.bound = bound
        """How many ordinary messages may wait."""
        self.closed = False
        self.rejected_total = 0
        self._system: deque[Envelope] = deque()
        self._ordinary: deque[Envelope] = deque()
        self._waiter: asyncio.Future[None] | None = None

    def __len__(self) -> int:
        return len(self._system) + len(self._ordinary)

    def empty(self) -> bool:
        """Say whether nothing waits."""
        return not self._system and not self._ordinary

    def put(self, envelope: Envelope, /, *, forced: bool = False) -> bool:
        """Take an ordinary message; False when the mailbox is full. `forced` ignores the bound (a `Terminated`)."""
        assert not self.closed, "the node looks before it puts"
        if len(self._ordinary) >= self.bound and not forced:
            self.rejected_total += 1
            return False
        self._ordinary.append(envelope)
        self._wake()
        return True

    def put_system(self, envelope: Envelope) -> None:
        """Take a system message: never refused, handled before any ordinary one."""
        self._system.append(envelope)
        self._wake()

    def get(self) -> Envelope:
        """Return the next envelope. Raises IndexError when nothing waits; see `wait`."""
        return self._system.popleft() if self._system else self._ordinary.popleft()

    async def wait(self) -> None:
        """Return once something waits. One waiter: the actor's own task."""
        while self.empty():
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None

    def close(self) -> list[Envelope]:
        """Close for good; return what was not handled."""
        self.closed = True
        left = [*self._system, *self._ordinary]
        self._system.clear()
        self._ordinary.clear()
        return left

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
