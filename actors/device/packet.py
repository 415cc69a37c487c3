"""The few header fields of an inner packet that a tunnel decides by.

Source and destination are checked against a peer's allowed addresses (WireGuard paper, section 2), the total
length strips the padding that WireGuard adds (section 5.4.6), the protocol tells a control packet from
traffic. Nothing else is read: options, extension headers and checksums are the end points' business.

IPv4: RFC 791, section 3.1. IPv6: RFC 8200, section 3.
"""

from typing import NamedTuple

IPV4_HEADER_BYTES = 20  # without options
IPV6_HEADER_BYTES = 40

_BytesLike = bytes | bytearray | memoryview


class IpHeader(NamedTuple):
    """What `read_header` found. A NamedTuple: made once a packet, at half the cost of a frozen class."""

    version: int
    """4 or 6."""
    source: bytes
    """4 or 16 bytes, network order, as `ipaddress.ip_address` takes them."""
    destination: bytes
    """As `source`."""
    protocol: int
    """IPv4's protocol or IPv6's *first* next header."""
    total_bytes: int
    """Header and payload, by the header's own account; never more than the packet that was given."""


def read_header(packet: _BytesLike) -> IpHeader | None:
    """Return the header's fields, or None when this is no whole IPv4 or IPv6 packet.

    Bytes beyond the total length are tolerated (padding); bytes missing from it are not. A memoryview must be
    of single bytes (format ``B``), as slices of buffers are.
    """
    size = len(packet)
    if size < IPV4_HEADER_BYTES:
        return None
    version = packet[0] >> 4
    if version == 4:
        header_bytes = (packet[0] & 0x0F) * 4
        total_bytes = packet[2] << 8 | packet[3]
        if not IPV4_HEADER_BYTES <= header_bytes <= total_bytes <= size:
            return None
        return IpHeader(4, bytes(packet[12:16]), bytes(packet[16:20]), packet[9], total_bytes)
    if version == 6:
        # A payload length of zero with a hop-by-hop option would be a jumbogram (RFC 2675): no tunnel's MTU
        # admits one, so it is read as what it says, an empty payload.
        total_bytes = IPV6_HEADER_BYTES + (packet[4] << 8 | packet[5])
        if total_bytes > size:
            return None
        return IpHeader(6, bytes(packet[8:24]), bytes(packet[24:40]), packet[6], total_bytes)
    return None


def source_of(packet: memoryview) -> bytes:
    """Return where the source address of an IP packet is; of what is none, something else."""
    return bytes(packet[8:24] if packet and packet[0] >> 4 == 6 else packet[12:16])


def destination_of(packet: memoryview) -> bytes:
    """Return where the destination address of an IP packet is; of what is none, something else."""
    return bytes(packet[24:40] if packet and packet[0] >> 4 == 6 else packet[16:20])
