"""The packet pump: the TUN device on one side, peer connections on the other.

It runs as reader callbacks on the worker's own loop. A packet from the device goes to the peer whose network is the
longest prefix of its destination; one from a peer goes to the device only if its source leads back to that peer
(WireGuard paper, section 2). Packets never cross a process.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import time
from collections import Counter
from collections.abc import Callable
from typing import Final, Protocol

from .intents import Intents
from .packet import read_header
from .routes import AllowedIPs

_READ_BUDGET: Final = 64
"""Packets read a wake-up; then timers, sockets and actors get their turn."""

_PACKET_BYTES: Final = 65_535


class Sink(Protocol):
    """Who carries packets to a peer."""

    def send_packet(self, packet: bytes) -> None:
        """Carry one inner packet; never blocks, drops if it must."""


class Pump:
    """Moves inner packets. On its worker's loop only."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        on_intent: Callable[[str], None],
        on_failed: Callable[[str], None] = lambda _reason: None,
    ) -> None:
        """`on_intent` is told a resource's id when a packet wants it and nobody carries it; `on_failed`, once for each
        device, why it cannot be read any more.
        """
        self._loop = loop
        self._on_intent = on_intent
        self._on_failed = on_failed
        self._fd: int | None = None
        self._sinks: AllowedIPs[Sink] = AllowedIPs()
        self._intents = Intents()
        self.counters: Counter[str] = Counter()
        """What was dropped, by reason."""

    # --- the device ---

    def set_device(self, fd: int | None) -> None:
        """Pump this TUN descriptor from now on (None: none); the former one is closed."""
        if self._fd is not None:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
        self._fd = fd
        if fd is not None:
            os.set_blocking(fd, False)
            self._loop.add_reader(fd, self._readable)

    @property
    def descriptor(self) -> int | None:
        """The device's descriptor; it stays ours."""
        return self._fd

    def pause(self) -> None:
        """Read nothing more from the device; what comes waits in the kernel. For a worker that is to be succeeded."""
        if self._fd is not None:
            self._loop.remove_reader(self._fd)

    # --- the peers ---

    def attach(self, sink: Sink, networks: tuple[str, ...]) -> None:
        """These networks, and no others, are the sink's from now on; what waited for them is sent."""
        self.detach(sink)
        for network in networks:
            self._sinks.insert(ipaddress.ip_network(network), sink)
        if networks:
            for packet in self._intents.take_all():
                self._from_device(packet)

    def detach(self, sink: Sink) -> None:
        """Give the sink nothing any more, and take nothing from it. Idempotent."""
        self._sinks.remove_owner(sink)

    def set_resources(self, resources: dict[str, str]) -> None:
        """Know these resources: network to id."""
        self._intents.set_resources(resources)

    def deliver(self, sink: Sink, packet: bytes) -> None:
        """Write a peer's packet to the device, if the peer may send from its source address."""
        header = read_header(packet)
        if header is None:
            self.counters["malformed_inbound"] += 1
        elif self._sinks.lookup(header.source) is not sink:
            self.counters["spoofed_inbound"] += 1
        elif self._fd is None:
            self.counters["no_device"] += 1
        else:
            try:
                os.write(self._fd, packet[: header.total_bytes])
            except OSError:
                self.counters["device_full"] += 1

    def close(self) -> None:
        """Let go of the device."""
        with contextlib.suppress(OSError):
            self.set_device(None)

    # --- inside ---

    def _readable(self) -> None:
        fd = self._fd
        for _ in range(_READ_BUDGET):
            if fd is None or fd != self._fd:
                return
            try:
                packet = os.read(fd, _PACKET_BYTES)
            except BlockingIOError:
                return
            except OSError as error:
                self._failed(str(error))
                return
            if not packet:
                self._failed("end of file")
                return
            self._from_device(packet)

    def _failed(self, reason: str) -> None:
        self.counters["device_failed"] += 1
        self.set_device(None)
        self._on_failed(reason)

    def _from_device(self, packet: bytes) -> None:
        header = read_header(packet)
        if header is None:
            self.counters["malformed_outbound"] += 1
            return
        sink = self._sinks.lookup(header.destination)
        if sink is not None:
            sink.send_packet(packet)
            return
        resource_id, ask = self._intents.keep(packet, header, time.monotonic())
        if resource_id is None:
            self.counters["unroutable"] += 1
        elif ask:
            self._on_intent(resource_id)
