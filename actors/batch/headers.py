"""Where the headers of an IP packet are, as far as splitting and merging need to know.

Functions read at a place in a buffer and allocate little. Whatever the bytes are, they return. IPv4: RFC 791 section
3.1. IPv6: RFC 8200 section 3. TCP: RFC 9293 section 3.1. UDP: RFC 768.
"""

from __future__ import annotations

from typing import Final

TCP: Final = 6
UDP: Final = 17

FIN: Final = 0x01
PSH: Final = 0x08
ACK: Final = 0x10
CWR: Final = 0x80

CHECKSUM_AT: Final = {TCP: 16, UDP: 6}
"""The checksum's offset in the transport header."""

HEADERS_MAX: Final = 120
"""The longest IPv4 and the longest TCP header."""


def packet_bytes(data: memoryview, start: int, end: int) -> int:
    """Return the length, by its header, of the packet that begins at `start`, or 0 if no whole one lies there."""
    there = end - start
    if there < 20:
        return 0
    first = data[start]
    if first >> 4 == 4:
        size = data[start + 2] << 8 | data[start + 3]
        return size if 20 <= (first & 15) * 4 <= size <= there else 0
    if first >> 4 == 6 and there >= 40:
        size = 40 + (data[start + 4] << 8 | data[start + 5])
        return size if size <= there else 0
    return 0
