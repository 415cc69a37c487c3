"""Congestion marks, carried from the inner packet to the outer one and back (RFC 3168, RFC 6040).

A router on the path that is congested marks what it would otherwise drop, if the sender has said that it understands:
the two lowest bits of the traffic class are Not-ECT (0), ECT(1) (1), ECT(0) (2) or CE (3, congestion experienced). It
sees only the outer header. So the inner mark is copied outward when a packet is sealed ("normal mode", RFC 6040 section
4.1), and what became of it is carried inward when it is opened (section 4.2)::

    inner      outer: Not-ECT    ECT(0)     ECT(1)     CE
    Not-ECT           Not-ECT    Not-ECT    Not-ECT    drop
    ECT(0)            ECT(0)     ECT(0)     ECT(1)     CE
    ECT(1)            ECT(1)     ECT(1)     ECT(1)     CE
    CE                CE         CE         CE         CE

The other six bits are the inner network's business (RFC 2983 leaves the choice), and tell an onlooker nothing.
"""

from __future__ import annotations

from typing import Final

NOT_ECT: Final = 0
ECT_1: Final = 1
ECT_0: Final = 2
CE: Final = 3
_IPV4_CHECKSUM_AT: Final = 10


def ecn_of(packet: memoryview) -> int:
    """Return an IP packet's mark. It has at least two bytes."""
    return packet[1] & 3 if packet[0] >> 4 == 4 else packet[1] >> 4 & 3


def carry_inward(packet: memoryview, outer: int) -> bool:
    """Combine the mark of the outer header with an IP packet's own, in place; False: the packet is to be dropped.

    IPv4's header checksum is adjusted (RFC 1624 equation 3). The packet has a whole header.
    """
    inner = ecn_of(packet)
    if outer == CE:
        if inner == NOT_ECT:
            return False
        combined = CE
    elif outer == ECT_1 and inner == ECT_0:
        combined = ECT_1
    else:
        return True
    if packet[0] >> 4 == 6:
        packet[1] = packet[1] & 0xCF | combined << 4
        return True
    before = packet[0] << 8 | packet[1]
    packet[1] = packet[1] & 0xFC | combined
    at = _IPV4_CHECKSUM_AT
    total = (~(packet[at] << 8 | packet[at + 1]) & 0xFFFF) + (~before & 0xFFFF) + (packet[0] << 8 | packet[1])
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    packet[at : at + 2] = (~total & 0xFFFF).to_bytes(2, "big")
    return True
