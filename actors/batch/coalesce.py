"""From packets to frames: neighbours of one flow become one frame, to be cut again by whoever needs packets.

Packets are merged only if splitting the frame gives them back to the byte, IPv4 ids aside: all that a splitter derives
must be as it would derive it, and all else equal. Checksums are verified before they are replaced. Only the newest
frame of a flow grows, and a packet whose flow is not known ends the growth of all, so no flow is reordered.

A *chunk* is a run of packets of one size that are known to follow one another; whoever found it has compared all of it
but not verified its first checksum. A packet alone is a chunk of one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from . import vnet
from .checksum import ip_checksum, pseudo_sum, residue
from .contract import VNET_BYTES
from .headers import ACK, CHECKSUM_AT, HEADERS_MAX, PSH, TCP, UDP

_IP_BYTES_MAX: Final = 65_535
_UDP_PACKETS_MAX: Final = 64
"""Linux refuses a UDP frame of more (UDP_MAX_SEGMENTS, for long 64)."""
_UNKNOWN: Final = b""

Place = tuple[int, int, int]
"""Where a frame is: start, end, and how many packets are in it."""
CopyPayloads = Callable[[memoryview, int, int, int, int, memoryview, int], None]
"""See `copy_payloads`."""


class Packet(NamedTuple):
    """What merging needs to know of a packet."""

    flow: bytes
    """Version, protocol, addresses and ports; empty when it is of no TCP or UDP flow that could be told."""
    signature: bytes
    """The header bytes that must be equal in a frame; empty when the packet stays alone."""
    protocol: int
    transport: int
    """Offset of the transport header; 20 or 40."""
    header_end: int
    sequence: int
    """TCP's; 0 for UDP."""
    pushes: bool
    """PSH is set."""


_STRANGER: Final = Packet(_UNKNOWN, b"", 0, 0, 0, 0, False)


def read_packet(data: memoryview, start: int, size: int) -> Packet:
    """Describe the packet of `size` bytes at `start`, which `packet_bytes` has accepted; not its checksums."""
    header = bytes(data[start : start + min(size, HEADERS_MAX)])
    first = header[0]
    if first >> 4 == 4:
        transport = (first & 15) * 4
        if (header[6] & 0x3F) or header[7]:
            return _STRANGER  # a fragment
        protocol = header[9]
        flow = header[9:10] + header[12:20] + header[transport : transport + 4]
        mergeable = first == 0x45 and header[6] in {0, 0x40}
        fixed = header[0:2] + header[6:10] + header[12:20]
    else:
        transport, protocol = 40, header[6]
        flow = header[6:7] + header[8:44]
        mergeable = True
        fixed = header[0:4] + header[6:40]
    if protocol not in CHECKSUM_AT or size < transport + 4:
        return _STRANGER
    if mergeable and protocol == TCP and size > transport + 20:
        header_end = transport + (header[transport + 12] >> 4) * 4
        flags = header[transport + 13]
        if transport + 20 <= header_end < size and flags | PSH == ACK | PSH and not header[transport + 12] & 15:
            return Packet(
                flow,
                fixed
                + header[transport : transport + 4]
                + header[transport + 8 : transport + 13]
                + header[transport + 14 : transport + 16]
                + header[transport + 18 : header_end],
                protocol,
                transport,
                header_end,
                int.from_bytes(header[transport + 4 : transport + 8], "big"),
                bool(flags & PSH),
            )
    elif mergeable and protocol == UDP and size > transport + 8:
        length = header[transport + 4] << 8 | header[transport + 5]
        if length == size - transport and (header[transport + 6] or header[transport + 7]):
            ports = header[transport : transport + 4]
            return Packet(flow, fixed + ports, protocol, transport, transport + 8, 0, False)
    return Packet(flow, b"", protocol, transport, 0, 0, False)


def is_sound(data: memoryview, start: int, size: int, packet: Packet) -> bool:
    """Say whether the checksums of a packet that could be merged are right."""
    transport = start + packet.transport
    if packet.transport == 20:
        if residue(data[start:transport]):
            return False
        addresses = data[start + 12 : transport]
    else:
        addresses = data[start + 8 : transport]
    total = residue(addresses) + packet.protocol + size - packet.transport + residue(data[transport : start + size])
    return total % 0xFFFF == 0


class Frame:
    """Packets that will be one frame."""

    __slots__ = ("count", "gso_size", "is_open", "is_verified", "next_sequence", "packet", "pushes", "runs", "size")

    def __init__(self, packet: Packet, start: int, size: int) -> None:
        self.packet = packet
        """The first one."""
        self.size = size
        """Bytes of the packet that it is to be."""
        self.gso_size = size - packet.header_end
        self.runs: list[tuple[int, int, int, int]] = [(start, 1, 0, size)]
        """(start, packets, stride, bytes of each): the packets that it consists of."""
        self.count = 1
        self.next_sequence = packet.sequence + self.gso_size & 0xFFFFFFFF
        self.pushes = packet.pushes
        self.is_open = bool(packet.signature) and not packet.pushes
        """It may grow."""
        self.is_verified: bool | None = None
        """Whether the first packet's checksums are right; None when nobody has looked."""

    def admits(self, packet: Packet, payload: int) -> int:
        """Return how many packets like this one, each following the one before, may be added: checksums aside."""
        if packet.signature != self.packet.signature or payload > self.gso_size:
            return 0
        room = (_IP_BYTES_MAX - self.size) // payload
        if packet.protocol == UDP:
            room = min(room, _UDP_PACKETS_MAX - self.count)
        elif packet.sequence != self.next_sequence:
            return 0
        return min(room, 1) if payload < self.gso_size else room

    def add(self, start: int, count: int, stride: int, size: int, *, pushes: bool) -> None:
        """Add packets that are admitted."""
        payload = size - self.packet.header_end
        self.runs.append((start, count, stride, size))
        self.count += count
        self.size += count * payload
        self.next_sequence = self.next_sequence + count * payload & 0xFFFFFFFF
        self.pushes = pushes
        self.is_open = payload == self.gso_size and not pushes


class Chunk(NamedTuple):
    """A run of packets of one size and one signature, each following the one before."""

    packet: Packet
    """The first one."""
    start: int
    count: int
    stride: int
    size: int
    """Bytes of each."""
    pushes: bool
    """The last one has PSH."""
    sound: bool | None
    """Whether the checksums are right; None when nobody has looked. If they are not, the chunk is one packet."""


class Merger:
    """Takes packets in order and decides what becomes of them."""

    __slots__ = ("_data", "_newest", "frames")

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._newest: dict[bytes, Frame] = {}
        self.frames: list[Frame] = []

    def add(self, chunk: Chunk) -> None:
        """Take some packets."""
        packet, start, count, stride, size, pushes, sound = chunk
        if not packet.flow:
            self._newest.clear()
            self.frames.append(Frame(packet, start, size))
            return
        while count:
            taken = 0
            frame = self._newest.get(packet.flow)
            if frame is not None and frame.is_open:
                taken = min(count, frame.admits(packet, size - packet.header_end))
                if taken and sound is None:
                    sound = is_sound(self._data, start, size, packet)
                if taken and sound and self._is_verified(frame):
                    frame.add(start, taken, stride, size, pushes=pushes and taken == count)
                else:
                    taken = 0
            if not taken:
                self._newest[packet.flow] = frame = Frame(packet, start, size)
                self.frames.append(frame)
                frame.is_verified = sound
                frame.is_open = frame.is_open and sound is not False
                taken = 1
            count -= taken
            if count:
                start += taken * stride
                sequence = packet.sequence + taken * (size - packet.header_end) & 0xFFFFFFFF
                packet = packet._replace(sequence=sequence, pushes=pushes and count == 1)

    def _is_verified(self, frame: Frame) -> bool:
        if frame.is_verified is None:
            frame.is_verified = is_sound(self._data, frame.runs[0][0], frame.runs[0][3], frame.packet)
            frame.is_open = frame.is_verified
        return frame.is_verified


def write(data: memoryview, frames: Iterable[Frame], out: memoryview, copy_payloads: CopyPayloads) -> list[Place]:
    """Write the frames of packets in `data` to `out`, one after another."""
    places: list[Place] = []
    begin = 0
    for frame in frames:
        end = begin + VNET_BYTES + frame.size
        if frame.count == 1:
            write_one(data, frame.runs[0][0], frame.size, out, begin)
        else:
            _write_many(data, frame, out[begin:end], copy_payloads)
        places.append((begin, end, frame.count))
        begin = end
    return places


def write_one(data: memoryview, start: int, size: int, out: memoryview, begin: int) -> None:
    """Write a packet that stays alone."""
    out[begin : begin + VNET_BYTES] = vnet.NOTHING_LEFT
    out[begin + VNET_BYTES : begin + VNET_BYTES + size] = data[start : start + size]


def copy_payloads(data: memoryview, start: int, rows: int, stride: int, width: int, out: memoryview, at: int) -> None:
    """Copy so many bytes of each packet, to lie one after another."""
    for begin in range(start, start + rows * stride, stride):
        out[at : at + width] = data[begin : begin + width]
        at += width


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
        header[4:6] = (frame.size - 40).to_bytes(2, "big")
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
    for run_start, count, stride, size in frame.runs:
        payload = size - header_end
        if count == 1:
            out[at : at + payload] = data[run_start + header_end : run_start + size]
        else:
            copy(data, run_start + header_end, count, stride, payload, out, at)
        at += count * payload
