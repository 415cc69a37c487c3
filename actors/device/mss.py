"""The maximum segment size of a TCP connection, lowered to what the path takes as the connection opens.

Each side says in its SYN how long a segment it wants (RFC 9293 section 3.7.1), and thinks of its own link alone. The
SYNs of both pass here, so neither side ever has to be told by ICMP, which many networks drop (RFC 2923 section 2.1).
Only that option is changed, and only downwards; the checksum is adjusted by the difference (RFC 1624 equation 3).
"""

from __future__ import annotations

from typing import Final

from ..batch.contract import VNET_BYTES
from ..batch.vnet import NEEDS_CSUM
from .packet import IPV4_HEADER_BYTES, IPV6_HEADER_BYTES

SYN_BYTES_MAX: Final = 60 + 60
"""The longest headers there are. A SYN that carries data may be longer; it is left alone."""
_TCP: Final = 6
_TCP_HEADER_BYTES: Final = 20
_FLAGS_AT, _SYN = 13, 0x02
_CHECKSUM_AT: Final = 16
_END, _NOTHING, _MSS, _MSS_BYTES = 0, 1, 2, 4


def clamp_mss(frame: memoryview, mtu: int) -> bool:
    """Lower the segment size that a frame with a whole packet asks for, in place; False: it is no SYN, or asks for no
    more than fits into packets of `mtu` bytes.
    """
    packet = frame[VNET_BYTES:]
    if packet[0] >> 4 == 4:
        transport = (packet[0] & 0x0F) * 4
        is_first = packet[6] & 0x1F == 0 and packet[7] == 0  # RFC 791: fragment offset 0
        is_tcp, fitting = packet[9] == _TCP and is_first, mtu - IPV4_HEADER_BYTES
    else:
        transport = IPV6_HEADER_BYTES
        is_tcp, fitting = packet[6] == _TCP, mtu - IPV6_HEADER_BYTES
    if not is_tcp or len(packet) < transport + _TCP_HEADER_BYTES or not packet[transport + _FLAGS_AT] & _SYN:
        return False
    at = _mss_at(packet, transport)
    mss, fitting = packet[at] << 8 | packet[at + 1] if at else 0, fitting - _TCP_HEADER_BYTES
    if mss <= fitting:
        return False
    packet[at : at + 2] = fitting.to_bytes(2, "big")
    if not frame[0] & NEEDS_CSUM:  # else it is summed up later
        _adjust(packet, transport + _CHECKSUM_AT, mss, fitting, is_odd=bool((at - transport) & 1))
    return True


def _mss_at(packet: memoryview, transport: int) -> int:
    """Return where the segment size stands, or 0: it is not said, or the options make no sense."""
    at, end = transport + _TCP_HEADER_BYTES, min(transport + (packet[transport + 12] >> 4) * 4, len(packet))
    while at < end and (kind := packet[at]) != _END:
        if kind == _NOTHING:
            at += 1
            continue
        size = packet[at + 1] if at + 1 < end else 0
        if size < 2 or at + size > end:
            break
        if kind == _MSS:
            return at + 2 if size == _MSS_BYTES else 0
        at += size
    return 0


def _adjust(packet: memoryview, at: int, before: int, after: int, *, is_odd: bool) -> None:
    """Adjust a checksum for a number that has changed; where it begins at an odd byte, its bytes count swapped."""
    if is_odd:
        before, after = (number >> 8 | (number & 0xFF) << 8 for number in (before, after))
    total = (~(packet[at] << 8 | packet[at + 1]) & 0xFFFF) + (~before & 0xFFFF) + after
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    packet[at : at + 2] = (~total & 0xFFFF).to_bytes(2, "big")
