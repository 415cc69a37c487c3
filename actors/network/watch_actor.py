"""The watcher: tells the event loop when this host's network is another one, or when the host has slept.

It listens to rtnetlink's groups of links, addresses and routes, which takes no privileges, and reads nothing of what
it hears: that something was said is enough to look (see `watch`).
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import socket
import time
from typing import Final

import msgspec
import psutil

from exeunt.runtime import Actor, receive
from exeunt.runtime.wakeups import add_reader, call_later

from ..messages import IgnoreAddresses, NetworkChanged
from ..succession import hands_over, inherit_if_any, leave
from .watch import NetworkWatch, Picture

logger = logging.getLogger(__name__)

_GROUPS: Final = 0x1 | 0x10 | 0x40 | 0x100 | 0x400
"""RTMGRP_LINK, _IPV4_IFADDR, _IPV4_ROUTE, _IPV6_IFADDR, _IPV6_ROUTE (linux/rtnetlink.h)."""

_WORLD: Final = (("198.41.0.4", socket.AF_INET), ("2001:503:ba3e::2:30", socket.AF_INET6))
"""Addresses that every default route leads to: a root name server's. Nothing is sent there; connecting a UDP socket
only asks the kernel for a route.
"""

_READ_BYTES: Final = 65_536
_TICK_S: Final = 0.001
"""A loop's clock has milliseconds, so its timers may be early by one; who looks then looks again, and again."""
_READS: Final = 64  # datagrams a wake-up: what is left calls again


class WatcherLegacy(msgspec.Struct, frozen=True):
    """What a watcher leaves to its successor."""

    ignored: tuple[str, ...]
    picture: tuple[str, ...]


class NetworkWatcher(Actor):
    """Watches the network of this host. Lives in the `control` worker."""

    def __init__(self, owner: str, ignored: tuple[str, ...] = ()) -> None:
        """`owner` is told `NetworkChanged`; `ignored` are the names of our own devices."""
        super().__init__()
        self._owner = owner
        self._ignored = frozenset(ignored)
        self._socket: socket.socket | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def picture(self) -> Picture:
        """What it has last seen."""
        return self._watch.picture

    def on_start(self) -> None:
        """Listen, and remember how things are, or were for a predecessor: if they have changed since, that is news."""
        left = inherit_if_any(self, WatcherLegacy)
        if left is not None:
            self._ignored |= set(left.ignored)
        seen = picture(self._ignored) if left is None else frozenset(left.picture)
        self._watch = NetworkWatch(seen, *clocks())
        if left is not None:
            self._watch.handle_event(time.monotonic())
        try:
            self._socket = socket.socket(
                socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE
            )
            self._socket.bind((0, _GROUPS))
        except OSError as error:  # a sandbox without netlink: clocks and silence still tell
            logger.info("The network is not watched", extra={"event": "watch_refused", "error": str(error)})
            self._close()
        else:
            add_reader(self.node.loop, self._socket.fileno(), "netlink", self._readable)
        self._set_timer()

    def on_stop(self) -> None:
        """Let go of the socket; a successor compares with what we have seen."""
        if hands_over(self):
            leave(self, WatcherLegacy(tuple(self._ignored), tuple(self._watch.picture)))
        self._release()

    def on_crash(self, failure: object) -> None:
        """Let go of the socket."""
        self._release()

    def _release(self) -> None:
        self._close()
        if self._timer is not None:
            self._timer.cancel()

    @receive(IgnoreAddresses)
    def on_ignore_addresses(self, message: IgnoreAddresses) -> None:
        """Leave the tunnel's own addresses out of the picture: an app's device may have any name."""
        if not self._ignored.issuperset(message.addresses):
            self._ignored |= set(message.addresses)
            self._watch.handle_picture(picture(self._ignored))

    def _readable(self) -> None:
        assert self._socket is not None
        for _ in range(_READS):
            try:
                self._socket.recv(_READ_BYTES)
            except BlockingIOError:
                break
            except OSError:  # ENOBUFS: more was said than fits. That is a reason to look, too
                continue
        self._watch.handle_event(time.monotonic())
        self._set_timer()

    def look(self) -> None:
        """Compare clocks and pictures, if it is time. The timer calls this."""
        self._timer = None
        now, boot = clocks()
        reason = self._watch.handle_clocks(now, boot)
        if self._watch.wants_picture(now):
            reason = self._watch.handle_picture(picture(self._ignored)) or reason
        if reason is not None:
            logger.info("The network of this host has changed", extra={"event": "network_changed", "reason": reason})
            self.node.ref(self._owner).tell(NetworkChanged(reason))
        self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        due_at, reason = self._watch.poll_timeout()
        delay_s = max(0.0, due_at - time.monotonic()) + _TICK_S
        self._timer = call_later(self.node.loop, delay_s, reason, self.look)

    def _close(self) -> None:
        if self._socket is not None:
            with contextlib.suppress(ValueError):
                self.node.loop.remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None


def picture(ignored: frozenset[str]) -> Picture:
    """Return this host's addresses and the ways out of it, without the devices and addresses that are `ignored`."""
    sources = {_source_towards(*one) for one in _WORLD} - {None, *ignored}
    found = {f"out {source}" for source in sources}
    for device, addresses in psutil.net_if_addrs().items():
        if device not in ignored:
            found |= {
                entry.address
                for entry in addresses
                if entry.family in (socket.AF_INET, socket.AF_INET6) and _matters(entry.address)
            }
    return frozenset(found - ignored)


def _matters(text: str) -> bool:
    address = ipaddress.ip_address(text.partition("%")[0])
    return not (address.is_loopback or address.is_link_local)


def _source_towards(host: str, family: socket.AddressFamily) -> str | None:
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as asked:
            asked.connect((host, 53))
            return str(asked.getsockname()[0])
    except OSError:
        return None


def clocks() -> tuple[float, float]:
    """Return the monotonic and the boot-time clock, in seconds."""
    return time.monotonic(), time.clock_gettime(time.CLOCK_BOOTTIME)
