"""Whether this host's network is another one than a moment ago. Pure.

What matters to a tunnel is small: the addresses that its sockets may use, and the one that packets to the world leave
from. Together they are the host's *picture*. The kernel tells of every change of links, addresses and routes
(rtnetlink(7)), most of which change nothing in the picture: a lease renewed, a container started, our own device and
its routes. So an event only says when to look again, once nothing has happened for a while, and only another picture
is a change.

A host that was suspended may wake up anywhere, with the same picture. The boot-time clock runs on while it sleeps and
the monotonic clock stops (clock_gettime(2)): their distance grows by the time asleep. A process that was merely
stopped (SIGSTOP) finds its timers late.
"""

from __future__ import annotations

from ..timing import CLOCK_LOOK_S, NETWORK_SETTLE_MAX_S, NETWORK_SETTLE_S, SUSPEND_S

Picture = frozenset[str]
"""Addresses as texts; that of a way out begins with its direction, `out 192.0.2.7`."""


class NetworkWatch:
    """Compares pictures and clocks. `now` is the monotonic clock, `boot` the boot-time clock, both in seconds."""

    def __init__(self, picture: Picture, now: float, boot: float) -> None:
        self.picture = picture
        """What was last seen."""
        self._asleep_s = boot - now
        self._look_at: float | None = None
        self._latest_look_at = 0.0
        self._clock_at = now + CLOCK_LOOK_S

    def handle_event(self, now: float) -> None:
        """The kernel says that some link, address or route has changed: look, but not before it is over."""
        if self._look_at is None:
            self._latest_look_at = now + NETWORK_SETTLE_MAX_S
        self._look_at = min(now + NETWORK_SETTLE_S, self._latest_look_at)

    def wants_picture(self, now: float) -> bool:
        """Say whether it is time to look."""
        return self._look_at is not None and now >= self._look_at

    def handle_picture(self, picture: Picture) -> str | None:
        """This is what is there now. Return what has changed, in words, or None."""
        self._look_at = None
        came, went = picture - self.picture, self.picture - picture
        self.picture = picture
        if not came and not went:
            return None
        return f"addresses changed: {len(came)} came, {len(went)} went"

    def handle_clocks(self, now: float, boot: float) -> str | None:
        """Time has passed. Return how long this host slept or this process was stopped, in words, or None."""
        if now < self._clock_at:
            return None
        late_s = now - self._clock_at
        slept_s = boot - now - self._asleep_s
        self._asleep_s = boot - now
        self._clock_at = now + CLOCK_LOOK_S
        if slept_s > SUSPEND_S:
            return f"this host slept for {slept_s:.0f} s"
        if late_s > SUSPEND_S:
            return f"this process was stopped for {late_s:.0f} s"
        return None

    def poll_timeout(self) -> tuple[float, str]:
        """Return when to call `handle_clocks`, and `wants_picture`, next, and why."""
        look_at = self._clock_at if self._look_at is None else self._look_at
        return min((look_at, "the network has settled"), (self._clock_at, "clocks are compared"))
