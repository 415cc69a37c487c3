"""ICMP errors to the sender of a packet that cannot go on: it is too long, or leads nowhere.

The sender is on this host, or behind it; the error goes back through the device. Its source is the address that the
packet was for: it leads to the peer, as the kernel's reverse path filter wants, and a gateway's firewall permits it
exactly where it permits the packet.

Nobody is told of an error about an ICMP error, a fragment other than the first, or a packet that is not from one host
to another (RFC 1122 section 3.2.2, RFC 4443 section 2.4); and of no more errors than `ERRORS_PER_S` (RFC 1812 section
4.3.2.8).
"""

from __future__ import annotations

import struct
from typing import Final

from ..batch.checksum import ip_checksum, residue
from .packet import IPV4_HEADER_BYTES, IPV6_HEADER_BYTES, IpHeader

ERRORS_PER_S: Final = 100.0
"""On average; so many at once as well."""
_ICMP, _ICMPV6 = 1, 58
_HOPS: Final = 64
_QUOTED_V4: Final = 576 - IPV4_HEADER_BYTES - 8
"""RFC 1812 section 4.3.2.3: as much of the packet as fits into 576 bytes."""
_QUOTED_V6: Final = 1280 - IPV6_HEADER_BYTES - 8
"""RFC 4443 section 2.4 (c): as much as fits into the least MTU."""
_FRAGMENTATION_NEEDED: Final = (3, 4)  # RFC 792, RFC 1191 section 4
_PACKET_TOO_BIG: Final = (2, 0)  # RFC 4443 section 3.2
_HOST_UNREACHABLE: Final = (3, 1)  # RFC 792
_ADDRESS_UNREACHABLE: Final = (1, 3)  # RFC 4443 section 3.1
_V4_ERRORS: Final = frozenset({3, 4, 5, 11, 12})
_V4: Final = struct.Struct("!BBHHHBBH4s4s")
_V6: Final = struct.Struct("!IHBB16s16s")


class IcmpErrors:
    """Makes them, as many as is decent. `now` is seconds of one monotonic clock."""

    def __init__(self) -> None:
        self._left, self._at = ERRORS_PER_S, 0.0

    def too_big(self, packet: memoryview, header: IpHeader, mtu: int, now: float) -> bytes | None:
        """Return the packet that says "no more than `mtu` bytes"; None: nobody is to be told."""
        kind, code = _FRAGMENTATION_NEEDED if header.version == 4 else _PACKET_TOO_BIG
        return self._error(packet, header, (kind, code, mtu), now)

    def unreachable(self, packet: memoryview, header: IpHeader, now: float) -> bytes | None:
        """Return the packet that says "nobody there"; None: nobody is to be told."""
        kind, code = _HOST_UNREACHABLE if header.version == 4 else _ADDRESS_UNREACHABLE
        return self._error(packet, header, (kind, code, 0), now)

    def _error(self, packet: memoryview, header: IpHeader, said: tuple[int, int, int], now: float) -> bytes | None:
        if not _may_be_told(packet, header):
            return None
        self._left = min(ERRORS_PER_S, self._left + (now - self._at) * ERRORS_PER_S)
        self._at = now
        if self._left < 1:
            return None
        self._left -= 1
        if header.version == 4:
            return _v4(header, said, bytes(packet[: min(header.total_bytes, _QUOTED_V4)]))
        return _v6(header, said, bytes(packet[: min(header.total_bytes, _QUOTED_V6)]))


def _may_be_told(packet: memoryview, header: IpHeader) -> bool:
    source, destination = header.source, header.destination
    if header.version == 6:
        is_error = header.protocol == _ICMPV6 and len(packet) > IPV6_HEADER_BYTES and packet[IPV6_HEADER_BYTES] < 128
        return not (is_error or 0xFF in (source[0], destination[0]) or not any(source))
    if packet[6] & 0x1F or packet[7]:
        return False  # a fragment, but not the first
    at = (packet[0] & 0x0F) * 4
    is_error = header.protocol == _ICMP and len(packet) > at and packet[at] in _V4_ERRORS
    return not (is_error or source[0] in (0, 127) or max(source[0], destination[0]) >= 224)


def _v4(header: IpHeader, said: tuple[int, int, int], quoted: bytes) -> bytes:
    message = bytearray(struct.pack("!BBHI", said[0], said[1], 0, said[2]) + quoted)
    message[2:4] = ip_checksum(residue(message)).to_bytes(2, "big")
    fields = (0x45, 0, IPV4_HEADER_BYTES + len(message), 0, 0, _HOPS, _ICMP)
    checksum = ip_checksum(residue(_V4.pack(*fields, 0, header.destination, header.source)))
    return _V4.pack(*fields, checksum, header.destination, header.source) + message


def _v6(header: IpHeader, said: tuple[int, int, int], quoted: bytes) -> bytes:
    message = bytearray(struct.pack("!BBHI", said[0], said[1], 0, said[2]) + quoted)
    pseudo = header.destination + header.source + struct.pack("!II", len(message), _ICMPV6)  # RFC 8200 section 8.1
    message[2:4] = ip_checksum(residue(pseudo) + residue(message)).to_bytes(2, "big")
    return _V6.pack(6 << 28, len(message), _ICMPV6, _HOPS, header.destination, header.source) + message
