"""What merging needs to know of a packet: its flow, and all in its headers that neighbours must have in common.

The *signature* is the header as a number, with zeros where splitting a frame would write: lengths, IPv4 id, sequence
number, PSH, checksums. Two packets may become one frame only if their signatures are equal.
"""

from __future__ import annotations

from functools import cache
from typing import Final, NamedTuple

from .checksum import MODULUS, residue
from .headers import ACK, CHECKSUM_AT, HEADERS_MAX, PSH, TCP, UDP

Run = tuple[int, int, int, int]
"""Packets of one size, evenly spaced in a buffer: start of the first, how many, from one to the next, bytes of each."""


class Packet(NamedTuple):
    """A packet, or the first of a run."""

    flow: bytes
    """Addresses, ports and protocol; empty when it is of no TCP or UDP flow that could be told."""
    signature: int = 0
    """0 when the packet stays alone; then the rest says nothing."""
    protocol: int = 0
    transport: int = 0
    """Offset of the transport header: 20 or 40."""
    header_end: int = 0
    sequence: int = 0
    """TCP's; 0 for UDP."""
    pushes: bool = False
    """PSH is set."""


STRANGER: Final = Packet(b"")


@cache
def split_mask(protocol: int, transport: int, header_end: int, *, with_length: bool = False) -> int:
    """Return ones where two headers must be equal for their packets to be merged; lengths are compared if wished."""
    mask = bytearray(b"\xff" * header_end)
    lengths = (transport + 4,) if protocol == UDP else ()
    for at in (*lengths, 2 if transport == 20 else 4):
        if not with_length:
            mask[at : at + 2] = bytes(2)
    if transport == 20:
        mask[4:6] = mask[10:12] = bytes(2)
    at = transport + CHECKSUM_AT[protocol]
    mask[at : at + 2] = bytes(2)
    if protocol == TCP:
        mask[transport + 4 : transport + 8] = bytes(4)
        mask[transport + 13] ^= PSH
    return int.from_bytes(mask, "big")


def read_packet(data: memoryview, start: int, size: int) -> Packet:
    """Describe the packet of `size` bytes at `start`, which `packet_bytes` has accepted; not its checksums."""
    header = bytes(data[start : start + min(size, HEADERS_MAX)])
    first = header[0]
    if first == 0x45:
        protocol, transport = header[9], 20
        flow = header[12:24] + header[9:10]
        if (header[6] & 0xBF) or header[7]:
            return STRANGER if (header[6] & 0x3F) or header[7] or _has_no_ports(protocol, 20, size) else Packet(flow)
    elif first >> 4 == 6:
        protocol, transport = header[6], 40
        flow = header[8:44] + header[6:7]
    else:
        return _read_with_options(header, size)
    if protocol == TCP and size >= transport + 20:
        header_end = transport + (header[transport + 12] >> 4) * 4
        flags = header[transport + 13]
        if transport + 20 <= header_end < size and flags | PSH == ACK | PSH and not header[transport + 12] & 15:
            signature = int.from_bytes(header[:header_end], "big") & split_mask(TCP, transport, header_end)
            sequence = int.from_bytes(header[transport + 4 : transport + 8], "big")
            return Packet(flow, signature, TCP, transport, header_end, sequence, flags == ACK | PSH)
    elif protocol == UDP and size > transport + 8:
        length = header[transport + 4] << 8 | header[transport + 5]
        if length == size - transport and (header[transport + 6] or header[transport + 7]):
            header_end = transport + 8
            signature = int.from_bytes(header[:header_end], "big") & split_mask(UDP, transport, header_end)
            return Packet(flow, signature, UDP, transport, header_end)
    return STRANGER if _has_no_ports(protocol, transport, size) else Packet(flow)


def _read_with_options(header: bytes, size: int) -> Packet:
    """Describe an IPv4 packet with options, which stays alone."""
    transport = (header[0] & 15) * 4
    if (header[6] & 0x3F) or header[7] or _has_no_ports(header[9], transport, size):
        return STRANGER
    return Packet(header[12:20] + header[transport : transport + 4] + header[9:10])


def _has_no_ports(protocol: int, transport: int, size: int) -> bool:
    return protocol not in CHECKSUM_AT or size < transport + 4


def is_sound(data: memoryview, start: int, size: int, packet: Packet) -> bool:
    """Say whether the checksums of a packet that could be merged are right."""
    transport = packet.transport
    if transport == 20 and residue(data[start : start + 20]):
        return False
    total = residue(data[start + addresses_at(transport) : start + size])
    return (total + packet.protocol + size - transport) % MODULUS == 0


def addresses_at(transport: int) -> int:
    """Return where the addresses are; nothing is between them and the transport header."""
    return 12 if transport == 20 else 8
