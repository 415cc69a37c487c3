"""From packets to frames: neighbours of one flow become one frame, to be cut again by whoever needs packets.

Packets are merged only if splitting the frame gives them back to the byte, IPv4 ids aside: all that a splitter derives
must be as it would derive it, and all else equal. Checksums are verified before they are replaced. Only the newest
frame of a flow grows, and a packet whose flow is not known ends the growth of all, so no flow is reordered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from . import vnet
from .checksum import ip_checksum, pseudo_sum, residue
from .contract import VNET_BYTES
from .headers import CHECKSUM_AT, PSH, UDP
from .packet import Packet, Run, is_sound

_IP_BYTES_MAX: Final = 65_535
_UDP_PACKETS_MAX: Final = 64
"""Linux refuses a UDP frame of more (UDP_MAX_SEGMENTS, for long 64)."""

Place = tuple[int, int, int]
"""Where a frame is: start, end, and how many packets are in it."""
Lone = tuple[int, int]
"""Where a packet is that stays alone whatever comes: start, and how many bytes."""
CopyPayloads = Callable[[memoryview, Run, int, memoryview, int], None]
"""See `copy_payloads`."""


class Chunk(NamedTuple):
    """A run of packets of one flow and signature, each following the one before: what may be added at once."""

    packet: Packet
    """The first one."""
    run: Run
    pushes: bool
    """The last one has PSH; none before it has."""
    sound: bool | None
    """Whether all checksums are right; None when nobody has looked. If not all are, there is one packet."""


class Frame:
    """Packets that will be one frame."""

    __slots__ = ("count", "gso_size", "is_open", "next_sequence", "packet", "pushes", "runs", "size", "sound")

    def __init__(self, packet: Packet, run: Run, *, pushes: bool, sound: bool | None = None) -> None:
        """Begin with packets that each follow the one before; with `pushes` the last one has PSH."""
        _, count, _, size = run
        self.packet = packet
        """The first one."""
        self.gso_size = payload = size - packet.header_end
        self.size = size + (count - 1) * payload
        """Bytes of the packet that it is to be."""
        self.runs = [run]
        """The packets that it consists of."""
        self.count = count
        self.next_sequence = packet.sequence + count * payload & 0xFFFFFFFF
        self.pushes = pushes
        self.is_open = not pushes and sound is not False
        """It may grow."""
        self.sound = sound
        """Whether the checksums are right; None as long as nobody has looked at the first packet's."""

    def admits(self, packet: Packet, payload: int) -> int:
        """Return how many packets like this one, each following the one before, may be added: checksums aside."""
        if not self.is_open or packet.signature != self.packet.signature or payload > self.gso_size:
            return 0
        room = (_IP_BYTES_MAX - self.size) // payload
        if packet.protocol == UDP:
            room = min(room, _UDP_PACKETS_MAX - self.count)
        elif packet.sequence != self.next_sequence:
            return 0
        return min(room, 1) if payload < self.gso_size else room

    def add(self, run: Run, *, pushes: bool) -> None:
        """Add packets that are admitted."""
        _, count, _, size = run
        payload = size - self.packet.header_end
        self.runs.append(run)
        self.count += count
        self.size += count * payload
        self.next_sequence = self.next_sequence + count * payload & 0xFFFFFFFF
        self.pushes = pushes
        self.is_open = payload == self.gso_size and not pushes

    def is_sound(self, data: memoryview) -> bool:
        """Say whether its checksums are right; if not, it grows no more."""
        if self.sound is None:
            self.sound = is_sound(data, self.runs[0][0], self.runs[0][3], self.packet)
            self.is_open = self.is_open and self.sound
        return self.sound


class Merger:
    """Takes packets in order and decides what becomes of them."""

    __slots__ = ("_data", "_newest", "frames")

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._newest: dict[bytes, Frame] = {}
        self.frames: list[Frame | Lone] = []

    def add_one(self, packet: Packet, start: int, size: int) -> None:
        """Take a packet at whose checksums nobody has looked."""
        flow = packet.flow
        if not packet.signature:
            if flow:
                self._newest.pop(flow, None)
            else:
                self._newest.clear()
            self.frames.append((start, size))
            return
        frame = self._newest.get(flow)
        sound = None
        if frame is not None and frame.admits(packet, size - packet.header_end):
            sound = is_sound(self._data, start, size, packet)
            if sound and frame.is_sound(self._data):
                frame.add((start, 1, 0, size), pushes=packet.pushes)
                return
        run = start, 1, 0, size
        self._newest[flow] = frame = Frame(packet, run, pushes=packet.pushes, sound=sound)
        self.frames.append(frame)

    def add(self, chunk: Chunk) -> None:
        """Take packets at whose checksums somebody has looked."""
        packet, (start, count, stride, size), pushes, sound = chunk
        payload = size - packet.header_end
        while count:
            frame = self._newest.get(packet.flow)
            taken = 0 if frame is None or not sound else min(count, frame.admits(packet, payload))
            if frame is not None and taken and frame.is_sound(self._data):
                frame.add((start, taken, stride, size), pushes=pushes and taken == count)
            else:
                room = (_IP_BYTES_MAX - size) // payload
                if packet.protocol == UDP:
                    room = min(room, _UDP_PACKETS_MAX - 1)
                taken = min(count, 1 + room) if sound else 1
                run = start, taken, stride, size
                self._newest[packet.flow] = frame = Frame(packet, run, pushes=pushes and taken == count, sound=sound)
                self.frames.append(frame)
            start += taken * stride
            count -= taken
            if count:
                sequence = packet.sequence + taken * payload & 0xFFFFFFFF
                packet = packet._replace(sequence=sequence, pushes=pushes and count == 1)


def write(data: memoryview, frames: Iterable[Frame | Lone], out: memoryview, copy: CopyPayloads) -> list[Place]:
    """Write the frames of packets in `data` to `out`, one after another."""
    places: list[Place] = []
    begin = 0
    for frame in frames:
        if isinstance(frame, Frame) and frame.count > 1:
            end, count = begin + VNET_BYTES + frame.size, frame.count
            _write_many(data, frame, out[begin:end], copy)
        else:
            start, size = (frame.runs[0][0], frame.size) if isinstance(frame, Frame) else frame
            end, count = begin + VNET_BYTES + size, 1
            write_one(data, start, size, out, begin)
        places.append((begin, end, count))
        begin = end
    return places


def write_one(data: memoryview, start: int, size: int, out: memoryview, begin: int) -> None:
    """Write a packet that stays alone."""
    out[begin : begin + VNET_BYTES] = vnet.NOTHING_LEFT
    out[begin + VNET_BYTES : begin + VNET_BYTES + size] = data[start : start + size]


def copy_payloads(data: memoryview, run: Run, header_end: int, out: memoryview, at: int) -> None:
    """Copy what comes after the headers of each packet, to lie one after another from `at` on."""
    start, count, stride, size = run
    payload = size - header_end
    for begin in range(start + header_end, start + header_end + count * stride, stride):
        out[at : at + payload] = data[begin : begin + payload]
        at += payload


def _write_many(data: memoryview, frame: Frame, out: memoryview, copy: CopyPayloads) -> None:
    _, _, protocol, transport, header_end, _, _ = frame.packet
    start = frame.runs[0][0]
    header = bytearray(data[start : start + header_end])
    length = frame.size - transport
    if transport == 20:
        header[2:4] = frame.size.to_bytes(2, "big")
        header[10:12] = b"\0\0"
        header[10:12] = ip_checksum(residue(header[:20])).to_bytes(2, "big")
        gso_type, addresses = vnet.GSO_TCPV4, header[12:20]
    else:
        header[4:6] = length.to_bytes(2, "big")
        gso_type, addresses = vnet.GSO_TCPV6, header[8:40]
    if protocol == UDP:
        gso_type = vnet.GSO_UDP_L4
        header[transport + 4 : transport + 6] = length.to_bytes(2, "big")
    elif frame.pushes:
        header[transport + 13] |= PSH
    offset = CHECKSUM_AT[protocol]
    field = pseudo_sum(residue(addresses) + protocol + length)
    header[transport + offset : transport + offset + 2] = field.to_bytes(2, "big")
    vnet.HEADER.pack_into(out, 0, vnet.NEEDS_CSUM, gso_type, header_end, frame.gso_size, transport, offset)
    at = VNET_BYTES + header_end
    out[VNET_BYTES:at] = header
    for run in frame.runs:
        run_start, count, _, size = run
        if count == 1:
            out[at : at + size - header_end] = data[run_start + header_end : run_start + size]
        else:
            copy(data, run, header_end, out, at)
        at += count * (size - header_end)
