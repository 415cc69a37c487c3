"""From a frame to the packets that it stands for.

`read_frame` says how a frame is cut, `lay_out` writes the packets where they will be sealed. What the kernel calls
segmentation offload: each packet gets the headers of the whole, with its own lengths, its own id (RFC 791), sequence
number and checksums. FIN and PSH belong to the last packet's bytes, so the last alone carries them; CWR is said once,
by the first (RFC 3168 section 6.1.2).

A frame comes from this host's kernel, and yet nothing in it is believed that could lead outside of its buffer.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from . import vnet
from .checksum import ip_checksum, residue, transport_checksum
from .contract import MAX_DATAGRAMS, MAX_FRAME_BYTES, VNET_BYTES
from .headers import CHECKSUM_AT, CWR, FIN, HEADERS_MAX, PSH, TCP, UDP, packet_bytes

_U16: Final = struct.Struct("!H")
_U32: Final = struct.Struct("!I")
_WANTED: Final = {vnet.GSO_TCPV4: (4, TCP), vnet.GSO_TCPV6: (6, TCP)}
"""The gso_types that say version and protocol."""


class Cut(NamedTuple):
    """How a frame is cut; offsets are relative to the packet in it."""

    size: int
    """Bytes of the packet."""
    packets: int
    longest: int
    """Bytes of the first packet to be made; all others but the last have as many."""
    last: int
    """Bytes of the last one."""
    protocol: int = 0
    """TCP or UDP; 0 when the packet stands for itself."""
    transport: int = 0
    """Where the transport header begins, or where a checksum to be completed does."""
    header_end: int = 0
    """Where the payload begins, or where the field of a checksum to be completed is (0: nothing to complete)."""
    gso_size: int = 0

    @property
    def has_rest(self) -> bool:
        """Whether the last packet is shorter than the others."""
        return self.last != self.longest


def read_frame(frame: memoryview) -> Cut | None:
    """Return how to cut a frame, or None when it is malformed."""
    if not VNET_BYTES < len(frame) <= MAX_FRAME_BYTES:
        return None
    flags, gso_type, _, gso_size, csum_start, csum_offset = vnet.HEADER.unpack_from(frame)
    size = packet_bytes(frame, VNET_BYTES, len(frame))
    if not size:
        return None
    if gso_type != vnet.GSO_NONE:
        return _read_many(frame, size, gso_type & ~vnet.GSO_ECN, gso_size, csum_start if flags & vnet.NEEDS_CSUM else 0)
    if not flags & vnet.NEEDS_CSUM:
        return Cut(size, 1, size, size)
    field = csum_start + csum_offset
    return Cut(size, 1, size, size, 0, csum_start, field) if csum_start >= 20 and field <= size - 2 else None


def _read_many(frame: memoryview, size: int, gso_type: int, gso_size: int, csum_start: int) -> Cut | None:
    version = frame[VNET_BYTES] >> 4
    if gso_type == vnet.GSO_UDP_L4:
        protocol = UDP
    elif _WANTED.get(gso_type) == (version, TCP):
        protocol = TCP
    else:
        return None
    transport = _transport(frame, version, protocol, csum_start)
    header_end = transport + (8 if protocol == UDP else 20)
    if not transport or header_end > size:
        return None
    if protocol == TCP:
        header_end = transport + (frame[VNET_BYTES + transport + 12] >> 4) * 4
        if header_end < transport + 20:
            return None
    if header_end > min(size, HEADERS_MAX) or not gso_size:
        return None
    payload = size - header_end
    packets = max(1, -(-payload // gso_size))
    if packets > MAX_DATAGRAMS:
        return None
    last = size - (packets - 1) * gso_size
    longest = header_end + gso_size if packets > 1 else last
    return Cut(size, packets, longest, last, protocol, transport, header_end, gso_size)


def _transport(frame: memoryview, version: int, protocol: int, csum_start: int) -> int:
    """Return where the transport header is, or 0 if not where it must be. Behind extension headers the kernel knows."""
    if version == 4:
        return (frame[VNET_BYTES] & 15) * 4 if frame[VNET_BYTES + 9] == protocol else 0
    if frame[VNET_BYTES + 6] == protocol:
        return 40
    return csum_start if csum_start > 40 else 0


def complete(packet: memoryview, cut: Cut) -> None:
    """Complete the checksum of a packet that stands for itself, as the kernel would have."""
    if cut.header_end:
        _U16.pack_into(packet, cut.header_end, transport_checksum(residue(packet[cut.transport :])))


class Template:
    """The headers that all packets of a frame share, and the sums over what is the same in all."""

    __slots__ = ("addresses_sum", "at_checksum", "flags", "header", "ip_sum", "is_v4")

    def __init__(self, packet: memoryview, cut: Cut) -> None:
        """`header` has the lengths of all packets but the last, id and sequence number of the first, no checksums and
        none of the flags that one packet alone carries. `ip_sum` is the sum over the IPv4 header without the id.
        """
        _, _, longest, _, protocol, transport, header_end, _ = cut
        self.header = header = bytearray(packet[:header_end])
        self.is_v4 = header[0] >> 4 == 4
        self.at_checksum = transport + CHECKSUM_AT[protocol]
        self.flags = 0
        """FIN, PSH and CWR, as the frame has them."""
        header[self.at_checksum : self.at_checksum + 2] = b"\0\0"
        if protocol == TCP:
            self.flags = header[transport + 13] & (FIN | PSH | CWR)
            header[transport + 13] ^= self.flags
        self.ip_sum = 0
        if self.is_v4:
            header[10:12] = b"\0\0"
        self.set_lengths(longest, cut)
        if self.is_v4:
            self.ip_sum = residue(header[:transport]) - (header[4] << 8 | header[5])
        self.addresses_sum = residue(header[12:20] if self.is_v4 else header[8:40])

    def transport_sum(self, cut: Cut) -> int:
        """Return the sum over pseudo-header and transport header, without the sequence number."""
        transport = cut.transport
        total = self.addresses_sum + cut.protocol + cut.longest - transport + residue(self.header[transport:])
        return total - residue(self.header[transport + 4 : transport + 8]) if cut.protocol == TCP else total

    def set_lengths(self, size: int, cut: Cut) -> None:
        """Give the header the lengths of a packet of `size` bytes."""
        if self.is_v4:
            _U16.pack_into(self.header, 2, size)
        else:
            _U16.pack_into(self.header, 4, size - 40)
        if cut.protocol == UDP:
            _U16.pack_into(self.header, cut.transport + 4, size - cut.transport)


Part = tuple[memoryview, Template, Cut]
"""A frame that is to be laid out beside others: the packet in it, and what is known of that."""


def lay_out(
    packet: memoryview, template: Template, cut: Cut, train: memoryview, *, start: int, stride: int, first: int = 0
) -> None:
    """Write the packets of a frame from the first one on into the train: that to `start`, the others `stride` apart."""
    header, at_checksum, is_v4 = template.header, template.at_checksum, template.is_v4
    _, packets, _, _, protocol, transport, header_end, gso_size = cut
    identification = (header[4] << 8 | header[5]) + first & 0xFFFF
    sequence = _U32.unpack_from(header, transport + 4)[0] + first * gso_size & 0xFFFFFFFF if protocol == TCP else 0
    at_flags = transport + 13
    ip_sum, total = template.ip_sum, template.transport_sum(cut)
    begin = header_end + first * gso_size
    for number in range(first, packets):
        end = begin + gso_size
        flags = template.flags & CWR if number == 0 else 0
        if number == packets - 1:
            end = cut.size
            template.set_lengths(cut.last, cut)
            shorter = cut.longest - cut.last
            ip_sum -= shorter
            total -= shorter * 2 if protocol == UDP else shorter  # in the pseudo-header, and in UDP's own
            flags |= template.flags & (FIN | PSH)
        payload = packet[begin:end]
        if is_v4:
            _U16.pack_into(header, 4, identification)
            _U16.pack_into(header, 10, ip_checksum(ip_sum + identification))
            identification = identification + 1 & 0xFFFF
        partial = total + residue(payload)
        if protocol == TCP:
            _U32.pack_into(header, transport + 4, sequence)
            header[at_flags] |= flags
            partial += (sequence >> 16) + (sequence & 0xFFFF) + flags
            sequence = sequence + gso_size & 0xFFFFFFFF
        _U16.pack_into(header, at_checksum, transport_checksum(partial))
        train[start : start + header_end] = header
        train[start + header_end : start + header_end + end - begin] = payload
        if flags:
            header[at_flags] ^= flags
        start += stride
        begin = end
