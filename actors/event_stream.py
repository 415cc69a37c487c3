"""The event stream: what a session's user is told, and the reason why a program may end.

Two kinds of events. The interface's configuration and the resource list are *latest values*: a user who is slow
gets the newest and misses the ones between. All else are *notifications*: queued, bounded, and not said twice in a
row about the same resource.

The stream ends when the event loop is gone **and** its last event was delivered: that is what "drained" means, and the
supervisor waits for it. An event loop that crashed becomes a `Disconnected`, not silence.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import Final

import msgspec

from exeunt.runtime import Actor, ExeuntError, Terminated, receive

from .messages import (
    AllGatewaysOffline,
    ConnectionEstablished,
    Deliver,
    Disconnected,
    Event,
    GatewayVersionMismatch,
    Publish,
    ResourcesUpdated,
    StreamEnded,
    Subscribe,
    TunInterfaceUpdated,
)
from .succession import hands_over, inherit, leave
from .timing import LAST_DELIVERY_S

logger = logging.getLogger(__name__)

QUEUED: Final = 128
"""Notifications kept for a slow user; beyond it the oldest goes, counted."""

DELIVERY_S: Final = 3600.0
"""A user may take an event when it likes; what ends the wait is its death, which fails the ask at once."""


_COMPLAINTS: Final[dict[str, type[Event]]] = {one.__name__: one for one in (AllGatewaysOffline, GatewayVersionMismatch)}


class QueueLegacy(msgspec.Struct, frozen=True, kw_only=True):
    """What an event queue leaves to its successor."""

    latest: tuple[Event, ...]
    notifications: tuple[Event, ...]
    said: dict[str, str]
    dropped_total: int


class StreamLegacy(msgspec.Struct, frozen=True, kw_only=True):
    """What an event stream leaves to its successor."""

    subscriber: str | None
    queue: QueueLegacy
    under_way: Event | None
    """What the subscriber was told, and has not confirmed: it is told again, under the same number."""
    number: int
    undelivered: int


class EventQueue:
    """Events that wait for the user. Pure."""

    def __init__(self) -> None:
        self._latest: dict[type[Event], Event] = {}
        self._notifications: deque[Event] = deque()
        self._said: dict[str, type[Event]] = {}
        self.dropped_total = 0
        """Notifications that a slow user has missed."""

    def legacy(self) -> QueueLegacy:
        """Return all that waits, and what has been said."""
        return QueueLegacy(
            latest=tuple(self._latest.values()),
            notifications=tuple(self._notifications),
            said={resource_id: kind.__name__ for resource_id, kind in self._said.items()},
            dropped_total=self.dropped_total,
        )

    def restore(self, left: QueueLegacy) -> None:
        """Go on with what a predecessor has left."""
        self._latest = {type(event): event for event in left.latest}
        self._notifications.extend(left.notifications)
        self._said = {resource_id: _COMPLAINTS[kind] for resource_id, kind in left.said.items() if kind in _COMPLAINTS}
        self.dropped_total = left.dropped_total

    def __len__(self) -> int:
        return len(self._latest) + len(self._notifications)

    def push(self, event: Event) -> None:
        """Queue an event, replace the latest value, or leave out what was said already."""
        match event:
            case TunInterfaceUpdated() | ResourcesUpdated():
                self._latest.pop(type(event), None)
                self._latest[type(event)] = event
                return
            case AllGatewaysOffline(resource_id=resource_id) | GatewayVersionMismatch(resource_id=resource_id):
                if self._said.get(resource_id) is type(event):
                    return
                self._said[resource_id] = type(event)
            case ConnectionEstablished():
                self._said.clear()  # things have changed: the same complaint would be news again
            case _:
                pass
        if len(self._notifications) >= QUEUED:
            self._notifications.popleft()
            self.dropped_total += 1
        self._notifications.append(event)

    def pop(self) -> Event | None:
        """Take the next event: latest values first, a `Disconnected` therefore last."""
        if self._latest:
            return self._latest.pop(next(iter(self._latest)))
        return self._notifications.popleft() if self._notifications else None


class EventStream(Actor):
    """Delivers a session's events to its subscriber, and ends when there can be no more."""

    def __init__(self, loop: str) -> None:
        """`loop` is the event loop's address."""
        super().__init__()
        self._loop = loop
        self._queue = EventQueue()
        self._subscriber: str | None = None
        self._wake: asyncio.Event | None = None
        self._loop_gone = False
        self._pump: asyncio.Task[None] | None = None
        self._undelivered = 0
        """Events that were under way to a subscriber who is gone."""
        self._under_way: Event | None = None
        self._number = 0
        """Of the delivery that is under way, or was the last one."""

    def on_start(self) -> None:
        """Watch the event loop; go on where the predecessor stopped, if there is one."""
        self._wake = asyncio.Event()
        found = inherit(self, StreamLegacy)
        if found is not None:
            self._remember(found[0])
        self.node.ref(self._loop).watch()

    def on_stop(self) -> None:
        """Stop delivering; a successor may go on."""
        if self._pump is not None:
            self._pump.cancel()
        if hands_over(self):
            leave(self, self._legacy())

    def on_crash(self, failure: object) -> None:
        """Stop delivering."""
        if self._pump is not None:
            self._pump.cancel()

    @receive(Subscribe)
    def on_subscribe(self, message: Subscribe) -> None:
        """Deliver to this actor from now on."""
        self._subscriber = message.subscriber
        if self._pump is None or self._pump.done():
            self._pump = self.node.loop.create_task(self._deliver_all())

    @receive(Publish)
    def on_publish(self, message: Publish) -> None:
        """Queue an event."""
        self._push(message.event)

    @receive(Terminated)
    async def on_terminated(self, message: Terminated) -> None:
        """The event loop is gone: deliver what is left, then end."""
        if message.address != self._loop:
            return
        if message.reason not in ("normal", "shutdown"):
            detail = f": {message.failure.type}: {message.failure.message}" if message.failure else ""
            self._push(Disconnected(f"the event loop {message.reason}{detail}"))
        self._loop_gone = True
        assert self._wake is not None
        self._wake.set()
        if self._pump is not None:
            await asyncio.wait({self._pump}, timeout=LAST_DELIVERY_S)
        await self._say_ended()
        self.stop()

    def _legacy(self) -> StreamLegacy:
        return StreamLegacy(
            subscriber=self._subscriber,
            queue=self._queue.legacy(),
            under_way=self._under_way,
            number=self._number,
            undelivered=self._undelivered,
        )

    def _remember(self, left: StreamLegacy) -> None:
        self._queue.restore(left.queue)
        self._under_way, self._number, self._undelivered = left.under_way, left.number, left.undelivered
        if left.subscriber is not None:
            self.on_subscribe(Subscribe(left.subscriber))

    def _push(self, event: Event) -> None:
        self._queue.push(event)
        assert self._wake is not None
        self._wake.set()

    async def _deliver_all(self) -> None:
        """Hand over one event at a time; newer ones gather, or replace each other, meanwhile."""
        assert self._wake is not None
        assert self._subscriber is not None
        while True:
            if self._under_way is None:
                self._under_way = self._queue.pop()
                self._number += self._under_way is not None
            if self._under_way is None:
                if self._loop_gone:
                    return
                self._wake.clear()
                await self._wake.wait()
                continue
            try:
                deliver = Deliver(self._under_way, self._number)
                await self.node.ref(self._subscriber).ask(deliver, timeout_s=DELIVERY_S)
            except ExeuntError as error:
                logger.warning(
                    "The events' subscriber is gone", extra={"event": "subscriber_gone", "error": str(error)}
                )
                self._undelivered += 1
                self._under_way = None
                return
            self._under_way = None

    async def _say_ended(self) -> None:
        under_way = self._pump is not None and not self._pump.done()
        undelivered = len(self._queue) + self._queue.dropped_total + self._undelivered + under_way
        if undelivered:
            logger.warning("Events were not delivered", extra={"event": "undelivered", "count": undelivered})
        if self._subscriber is None:
            return
        try:
            await self.node.ref(self._subscriber).ask(StreamEnded(undelivered), timeout_s=LAST_DELIVERY_S)
        except ExeuntError as error:
            logger.info("Nobody heard the stream's end", extra={"event": "stream_end_unheard", "error": str(error)})
