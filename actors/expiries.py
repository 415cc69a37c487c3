"""Authorisations that end by themselves: a timer for each, kept by an event loop.

The portal says until when a resource may be used, in seconds of the wall clock. Both ends keep the time: the gateway,
which answers for it, says goodbye at the moment; the client waits a little for that goodbye, and then ends what it
holds without it, so that a gateway that cannot be heard leaves no right behind.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import Final, NamedTuple

from exeunt.runtime import Actor, Message
from exeunt.runtime.wakeups import call_later

from .legacy import Expiry

_LOOK_AGAIN_S: Final = 86_400
"""An expiry further away is looked at once a day: clocks are set, and a timer of a thousand years is none."""

Key = tuple[str, str]
"""Connection and resource id."""


class Expired(Message, frozen=True):
    """To ourselves: an authorisation's time is over."""

    connection: str
    resource_id: str


class _Expiry(NamedTuple):
    expires_at: float
    timer: asyncio.TimerHandle


class Expiries:
    """The authorisations that have an end. Their actor is told `Expired` when one's time is over, or might be."""

    def __init__(self, actor: Actor, *, patience_s: float = 0.0) -> None:
        """`patience_s` is waited beyond each end."""
        self._actor = actor
        self._patience_s = patience_s
        self._timers: dict[Key, _Expiry] = {}

    def restore(self, expiries: Iterable[Expiry]) -> None:
        """Go on with what a predecessor has left."""
        for one in expiries:
            self.set((one.connection, one.resource_id), one.expires_at)

    def known(self) -> tuple[Expiry, ...]:
        """Return each authorisation that has an end, without the patience."""
        return tuple(Expiry(*key, int(one.expires_at - self._patience_s)) for key, one in self._timers.items())

    def __len__(self) -> int:
        return len(self._timers)

    def timers(self) -> list[asyncio.TimerHandle]:
        """Return the timers that are set, in the order of their authorisations."""
        return [expiry.timer for expiry in self._timers.values()]

    def set(self, key: Key, expires_at: int | None) -> None:
        """This authorisation ends then (Unix seconds); None: never. What was known of it is replaced."""
        self.forget(key)
        if expires_at is not None:
            now = time.time()
            end_at = min(expires_at, int(now) + _LOOK_AGAIN_S) + self._patience_s
            delay_s = max(0.0, end_at - now)
            timer = call_later(self._actor.node.loop, delay_s, "access expires", self._actor.ref.tell, Expired(*key))
            self._timers[key] = _Expiry(min(expires_at, 2**60) + self._patience_s, timer)

    def take(self, message: Expired) -> bool:
        """Say whether that authorisation's time really is over, and forget it then. It may have been prolonged."""
        key = message.connection, message.resource_id
        expiry = self._timers.get(key)
        if expiry is None:
            return False
        if time.time() < expiry.expires_at:
            self.set(key, int(expiry.expires_at - self._patience_s))
            return False
        self.forget(key)
        return True

    def forget(self, key: Key) -> None:
        """The authorisation is gone, or another one."""
        expiry = self._timers.pop(key, None)
        if expiry is not None:
            expiry.timer.cancel()

    def forget_connection(self, connection: str) -> None:
        """The connection is gone."""
        for key in [key for key in self._timers if key[0] == connection]:
            self.forget(key)

    def close(self) -> None:
        """Leave no timer."""
        for key in list(self._timers):
            self.forget(key)
