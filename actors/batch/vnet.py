"""The header before each frame: what the kernel left undone, or may leave undone, with the packet after it.

Source: virtio 1.2 section 5.1.6, Linux `include/uapi/linux/virtio_net.h`. Fields are in the host's byte order.
"""

from __future__ import annotations

import struct
from typing import Final

HEADER: Final = struct.Struct("=BBHHHH")
"""flags, gso_type, hdr_len, gso_size, csum_start, csum_offset; the last two are relative to the packet."""

NOTHING_LEFT: Final = bytes(HEADER.size)
"""The header of a packet that is complete."""

NEEDS_CSUM: Final = 1
"""The transport checksum is to be completed: its field holds the sum of the pseudo-header."""

GSO_NONE: Final = 0
GSO_TCPV4: Final = 1
GSO_TCPV6: Final = 4
GSO_UDP_L4: Final = 5
GSO_ECN: Final = 0x80
"""Beside one of TCP's: the congestion window was reduced, which the first segment alone is to say (RFC 3168, 6.1.2)."""
