"""What gets through to a peer in one piece, and what is done about packets that would not.

The device's MTU is one for all peers, and their paths differ. A connection says what its own path takes (`Reach`; the
actor's machine finds it out), and the pump has senders keep to it: each TCP connection as it opens (`mss`), others when
they send something longer (`icmp`). Only those that can do something about it are told. An IPv4 packet that may be
fragmented goes as it is, and so does any IPv6 packet of up to 1,280 bytes, which every link has to carry (RFC 8200
section 5): what it becomes outside is then cut by routers, or by us.
"""

from __future__ import annotations

from typing import Final

from ..batch.contract import VNET_BYTES
from ..batch.split import read_frame
from .packet import IpHeader

BASE_MTU: Final = 1280
"""Bytes; what is taken for granted of each path, if need be in fragments (RFC 8200 section 5)."""
_FLAGS_AT: Final = 6
_DONT_FRAGMENT: Final = 0x40  # RFC 791 section 3.1


class Reach:
    """The largest packet that gets through to a peer whole. Changed by whoever finds out, read with each frame."""

    __slots__ = ("limit", "mtu")

    def __init__(self, mtu: int = BASE_MTU, limit: int = 0) -> None:
        self.mtu = mtu
        """Bytes."""
        self.limit = limit
        """The same, where it is less than what the device takes: then frames have to be looked at. Else 0."""


def refused_mtu(frame: memoryview, header: IpHeader, limit: int) -> int:
    """Return the MTU that the sender of a frame is to be told, or 0 where the frame is to go.

    `header` is that of the packet in the frame; `limit` is in bytes.
    """
    if header.total_bytes <= limit:
        return 0
    if header.version == 6:
        limit = max(limit, BASE_MTU)
    elif not frame[VNET_BYTES + _FLAGS_AT] & _DONT_FRAGMENT:
        return 0
    cut = read_frame(frame)
    return limit if cut is not None and cut.longest > limit else 0
