"""The packet pump: the TUN device on one side, peer connections on the other.

It runs as reader callbacks on the worker's own loop. A packet from the device goes to the peer whose network is the
longest prefix of its destination; one from a peer goes to the device only if its source leads back to that peer
(WireGuard paper, section 2). Packets never cross a process.

What moves are frames (`batch.contract`): up to 64 kB of one flow, looked up once. The buffers are the worker's: one to
read into, one for what is sealed (`trains`), one for what is opened. Whoever fills one empties it before the loop goes
on, so that no connection needs any of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import time
from array import array
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Protocol

from exeunt.runtime.wakeups import add_reader

from ..batch.contract import OUT_BYTES_EACH, VNET_BYTES
from ..batch.vnet import NOTHING_LEFT
from .crossing import crossing
from .ecn import NOT_ECT, carry_inward
from .frames import FrameDevice, packets_of
from .icmp import IcmpErrors
from .intents import Intents
from .mss import SYN_BYTES_MAX, clamp_mss
from .packet import destination_of, read_header, source_of
from .reach import Reach, refused_mtu
from .routes import AllowedIPs
from .trains import Trains


class Sink(Protocol):
    """Who carries packets to a peer."""

    reach: Reach
    """What gets through to it."""

    def send_frames(self, buffer: memoryview, spans: array[int]) -> int:
        """Carry frames, or what they stand for; never blocks, drops if it must. Return how many make no sense.

        Where they are, at spans of a buffer, is the callee's until it returns. It may put off sending until `flush`.
        """
        ...

    def send_packet(self, packet: bytes) -> None:
        """Carry one inner packet; never blocks, drops if it must."""

    def flush(self) -> None:
        """Send now what was put off."""


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
        self._device: FrameDevice | None = None
        self._sinks: AllowedIPs[Sink] = AllowedIPs()
        self._intents = Intents()
        self._sources = frozenset[bytes]()
        self._filling: Sink | None = None
        """Who may have put off sending."""
        self._out = memoryview(bytearray())
        self._errors = IcmpErrors()
        self.trains = Trains()
        """Where frames are sealed, for every sink."""
        self.crossing = crossing(loop)
        """Where what is ordinary goes by; None: nowhere, all comes by here."""
        self.counters: Counter[str] = Counter()
        """What was dropped, by reason; and how many SYNs had to ask for less."""

    # --- the device ---

    def set_device(self, fd: int | None) -> None:
        """Pump this TUN descriptor from now on (None: none); the former one is closed."""
        former, self._device = self._device, None
        self._tell_crossing()
        if former is not None:
            self._loop.remove_reader(former.fd)
            os.close(former.fd)
        if fd is None:
            return
        try:
            os.set_blocking(fd, False)
            self._device = FrameDevice(fd)
        except OSError as error:
            os.close(fd)
            self._failed(str(error))
        else:
            self._tell_crossing()
            add_reader(self._loop, fd, "device", self._readable)

    def _tell_crossing(self) -> None:
        if self.crossing is not None:
            self.crossing.set_device(self._device, self._sources)

    @property
    def descriptor(self) -> int | None:
        """The device's descriptor; it stays ours."""
        return None if self._device is None else self._device.fd

    @property
    def merges(self) -> bool:
        """Whether the device takes several packets of a flow as one."""
        return self._device is not None and self._device.merges

    def pause(self) -> None:
        """Read nothing more from the device; what comes waits in the kernel. For a worker that is to be succeeded."""
        if self._device is not None:
            self._loop.remove_reader(self._device.fd)

    # --- the peers ---

    def attach(self, sink: Sink, networks: tuple[str, ...]) -> None:
        """These networks, and no others, are the sink's from now on; what waited for them is sent."""
        self.detach(sink)
        if self.crossing is not None:
            self.crossing.forget()
        for network in networks:
            self._sinks.insert(ipaddress.ip_network(network), sink)
        if networks:
            for packet in self._intents.take_all():
                self._from_waiting(packet)

    def detach(self, sink: Sink) -> None:
        """Give the sink nothing any more, and take nothing from it. Idempotent."""
        if self.crossing is not None:
            self.crossing.forget()
        self._sinks.remove_owner(sink)

    def set_resources(self, resources: dict[str, str]) -> None:
        """Know these resources: network to id."""
        self._intents.set_resources(resources)

    def set_sources(self, addresses: tuple[str, ...]) -> None:
        """Carry only what comes from these addresses; none: whatever comes."""
        self._sources = frozenset(ipaddress.ip_address(address).packed for address in addresses)
        self._tell_crossing()

    def out(self, buffer: memoryview, datagrams: int) -> memoryview:
        """Return where a burst of so many datagrams, which is in this buffer, can be opened, until the next one is."""
        needed = len(buffer) + datagrams * OUT_BYTES_EACH
        if len(self._out) < needed:
            self._out = memoryview(bytearray(needed))
        return self._out

    def deliver(self, sink: Sink, out: memoryview, frames: Iterable[tuple[int, int, int]], ecn: int = NOT_ECT) -> None:
        """Write a peer's frames to the device: (start, end, packets) of each in `out`. Each is of whole IP packets, and
        is dropped unless the peer may send from its source address. `ecn` is the mark that they came with.
        """
        for start, end, packets in frames:
            packet = out[start + VNET_BYTES : end]
            if not self._is_carried_by(sink, source_of(packet)):
                self.counters["spoofed_inbound"] += packets
            elif self._device is None:
                self.counters["no_device"] += packets
            elif ecn and not carry_inward(packet, ecn):
                self.counters["congested_inbound"] += packets
            else:
                if end - start <= VNET_BYTES + SYN_BYTES_MAX and clamp_mss(out[start:end], sink.reach.mtu):
                    self.counters["mss_lowered"] += 1
                try:
                    self._device.write(out[start:end], packets)
                except OSError:
                    self.counters["device_full"] += packets

    def close(self) -> None:
        """Let go of the device."""
        with contextlib.suppress(OSError):
            self.set_device(None)

    # --- inside ---

    def _is_carried_by(self, sink: Sink, address: bytes) -> bool:
        if self._sinks.lookup(address) is not sink:
            return False
        if self.crossing is not None:
            self.crossing.know(address, sink)
        return True

    def _readable(self) -> None:
        device = self._device
        if device is None:
            return
        try:
            spans = device.read() if self.crossing is None else self.crossing.read(device, self.trains.buffer)
        except BlockingIOError:
            return
        except (OSError, EOFError) as error:
            self._failed(str(error))
            return
        if spans:
            self._from_device(device.buffer, spans)

    def _failed(self, reason: str) -> None:
        self.counters["device_failed"] += 1
        self.set_device(None)
        self._on_failed(reason)

    def _from_device(self, buffer: memoryview, spans: array[int]) -> None:
        """Give frames to whom they are for: those of one in a row at once."""
        run = array("I")
        try:
            for start, size in zip(spans[::2], spans[1::2], strict=True):
                sink = self._sink_of(buffer[start : start + size])
                if sink is None:
                    continue
                if sink is not self._filling:
                    self._give(buffer, run)
                    self._fill(sink)
                run.append(start)
                run.append(size)
            self._give(buffer, run)
        finally:
            self._fill(None)

    def _give(self, buffer: memoryview, run: array[int]) -> None:
        if run and self._filling is not None:
            malformed = self._filling.send_frames(buffer, run)
            if malformed:
                self.counters["malformed_outbound"] += malformed
            del run[:]

    def _sink_of(self, frame: memoryview) -> Sink | None:
        """Return who is to carry a frame, made fit for it; None: it waits, or was dropped or refused."""
        packet = frame[VNET_BYTES:]
        if self._sources and source_of(packet) not in self._sources:
            self.counters["foreign_outbound"] += 1
            return None
        sink = self._sinks.lookup(destination := destination_of(packet))
        if sink is None:
            self._wait(frame)
            return None
        if self.crossing is not None:
            self.crossing.know(destination, sink)
        if len(frame) <= VNET_BYTES + SYN_BYTES_MAX:
            if clamp_mss(frame, sink.reach.mtu):
                self.counters["mss_lowered"] += 1
        elif sink.reach.limit and self._refuses(frame, sink.reach.limit):
            return None
        return sink

    def _wait(self, frame: memoryview) -> None:
        packets = packets_of(frame)
        for packet in packets:
            self._from_waiting(packet)
        if not packets:
            self.counters["malformed_outbound"] += 1

    def _refuses(self, frame: memoryview, limit: int) -> bool:
        """Tell the sender of a frame when it is too long for its path; False: it is to go."""
        packet = frame[VNET_BYTES:]
        header = read_header(packet)
        mtu = 0 if header is None else refused_mtu(frame, header, limit)
        if header is None or not mtu:
            return False
        self.counters["too_big"] += 1
        self._answer(self._errors.too_big(packet, header, mtu, time.monotonic()))
        return True

    def _answer(self, error: bytes | None) -> None:
        """Tell a sender, by ICMP, what became of its packet."""
        if error is not None and self._device is not None:
            with contextlib.suppress(OSError):
                self._device.write(memoryview(NOTHING_LEFT + error), 1)

    def _fill(self, sink: Sink | None) -> None:
        """This sink is given frames now; the one before it sends what it has."""
        former, self._filling = self._filling, sink
        if former is not None:
            former.flush()

    def _from_waiting(self, packet: bytes) -> None:
        """Somebody can carry it now, or it waits."""
        header = read_header(packet)
        if header is None:
            self.counters["malformed_outbound"] += 1
            return
        sink = self._sinks.lookup(header.destination)
        if sink is not None:
            sink.send_packet(packet)
            return
        now = time.monotonic()
        resource_id, ask = self._intents.keep(packet, header, now)
        if resource_id is None:
            self.counters["unroutable"] += 1
            if self._intents.has_resources:
                self._answer(self._errors.unreachable(memoryview(packet), header, now))
        elif ask:
            self._on_intent(resource_id)
