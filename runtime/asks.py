"""The asks that wait for an answer, and their deadlines.

One timer for each ask would cost more than the rest of it: asks with the same timeout become due in the order in which
they were made, so one timer for the first of them is enough.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from .errors import AskTimeout
from .reply import FarReply, NearReply
from .wakeups import call_later

_ANSWERED_AT_MOST = 1_000  # entries of a queue that nobody waits for, beside as many as somebody does
_LANES = 8  # different timeouts in use at once that get a queue; asks with other ones get a timer each


class Asks:
    """The pending asks of one node. On its loop only."""

    def __init__(self, loop: asyncio.AbstractEventLoop, on_expiry: Callable[[int, str], None]) -> None:
        """`on_expiry` is told the id and the recipient of an ask that nobody waits for any more."""
        self._loop = loop
        self._on_expiry = on_expiry
        self.pending: dict[int, NearReply | FarReply] = {}
        """Who waits, by the id of the ask."""
        self._lanes: dict[float, _Lane] = {}

    def __len__(self) -> int:
        return len(self.pending)

    def __contains__(self, ask_id: int) -> bool:
        return ask_id in self.pending

    def begin(self, ask_id: int, to: str, reply: NearReply | FarReply, timeout_s: float, now_s: float) -> None:
        """Wait for an answer until the timeout, from now on."""
        self.pending[ask_id] = reply
        reply.ask_id, reply.to = ask_id, to
        lane = self._lanes.get(timeout_s)
        # What is left of a caller's deadline is never asked for twice.
        if lane is None and len(self._lanes) < _LANES and timeout_s == round(timeout_s, 3):
            lane = self._lanes[timeout_s] = _Lane(self, self._loop, timeout_s)
        if lane is not None:
            lane.add(ask_id, now_s + timeout_s)
        else:
            call_later(self._loop, timeout_s, "ask", self.expire, ask_id, timeout_s)

    def close_lane(self, timeout_s: float) -> None:
        """Nobody waits in it."""
        self._lanes.pop(timeout_s, None)

    def resolve(self, ask_id: int, value: Any) -> bool:
        """Give the answer to who waits; False when nobody does."""
        reply = self.pending.pop(ask_id, None)
        if reply is None:
            return False
        reply.resolve(value)
        return True

    def fail(self, ask_id: int, error: BaseException) -> bool:
        """End an ask with an error; False when nobody waits."""
        reply = self.pending.pop(ask_id, None)
        if reply is None:
            return False
        reply.fail(error)
        return True

    def forget(self, ask_id: int) -> str:
        """Nobody waits any more; return the recipient, or nothing if nobody did."""
        reply = self.pending.pop(ask_id, None)
        return "" if reply is None else reply.to

    def to_prefix(self, prefix: str) -> list[tuple[int, str]]:
        """List the asks, with their recipients, whose recipient's address begins so."""
        return [(ask_id, reply.to) for ask_id, reply in self.pending.items() if reply.to.startswith(prefix)]

    def expire(self, ask_id: int, timeout_s: float) -> None:
        """Its time is over, if it still waits."""
        reply = self.pending.pop(ask_id, None)
        if reply is not None:
            reply.fail(AskTimeout(f"{reply.to} did not answer within {timeout_s:g} s"))
            self._on_expiry(ask_id, reply.to)


class _Lane:
    """Asks with one timeout, in order of their deadlines."""

    def __init__(self, asks: Asks, loop: asyncio.AbstractEventLoop, timeout_s: float) -> None:
        self._asks = asks
        self._loop = loop
        self._timeout_s = timeout_s
        self._queue: deque[tuple[float, int]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, ask_id: int, due_s: float) -> None:
        queue, pending = self._queue, self._asks.pending
        while queue and queue[0][1] not in pending:
            queue.popleft()  # answered
        if len(queue) > 2 * len(pending) + _ANSWERED_AT_MOST:  # behind one that waits for long
            queue = self._queue = deque(entry for entry in queue if entry[1] in pending)
        queue.append((due_s, ask_id))
        if self._timer is None:
            self._timer = call_later(self._loop, self._timeout_s, "ask", self._due)

    def _due(self) -> None:
        self._timer = None
        queue, now = self._queue, self._loop.time()
        while queue and (queue[0][0] <= now or queue[0][1] not in self._asks):
            self._asks.expire(queue.popleft()[1], self._timeout_s)
        if queue:
            self._timer = call_later(self._loop, max(0.0, queue[0][0] - now), "ask", self._due)
        else:
            self._asks.close_lane(self._timeout_s)  # of an ask within another, most likely: no two are the same
