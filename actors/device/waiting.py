"""Inner packets that wait until somebody can carry them: bounded, in order, and each opening of a TCP connection once.

A program whose first packet goes nowhere does not wait in silence: its TCP repeats the SYN (RFC 9293 section 3.8.1).
Were all of them kept, the other end would be greeted several times at once, and answer each. So of SYNs with the same
addresses, ports and sequence number only the newest is kept, in the place of the first: its timestamp (RFC 7323) is
the one from which the round trip is measured. A SYN with another sequence number is another connection.
"""

from __future__ import annotations

import itertools
from typing import Final

from .packet import IPV6_HEADER_BYTES

WAITING_PACKETS: Final = 128
"""For one resource or one connection; beyond it the oldest goes. Enough for the first requests of a browser, and at
1,280 bytes each 160 kB."""
_TCP: Final = 6
_TCP_HEADER_BYTES: Final = 20
_FLAGS_AT: Final = 13
_SYN_AND_NOT: Final = 0x17  # FIN, SYN, RST and ACK; only SYN is set in the first segment of a connection
_SYN: Final = 0x02


def opening_of(packet: bytes) -> bytes | None:
    """Return what identifies a TCP SYN (addresses, ports, sequence number), or None for any other packet."""
    if len(packet) < 1 + _TCP_HEADER_BYTES:
        return None
    if packet[0] >> 4 == 4:
        start, addresses = (packet[0] & 0x0F) * 4, packet[12:20]
        is_whole = packet[6] & 0x3F == 0 and packet[7] == 0  # RFC 791: no more fragments, offset 0
        is_tcp = packet[9] == _TCP and is_whole
    else:
        start, addresses = IPV6_HEADER_BYTES, packet[8:40]
        is_tcp = packet[6] == _TCP
    if not is_tcp or len(packet) < start + _TCP_HEADER_BYTES:
        return None
    if packet[start + _FLAGS_AT] & _SYN_AND_NOT != _SYN:
        return None
    return addresses + packet[start : start + 8]


class WaitingPackets:
    """A queue that keeps the newest. `dropped_total` counts what had to go."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._packets: dict[bytes | int, bytes] = {}
        self._numbers = itertools.count()
        self.dropped_total = 0

    def __len__(self) -> int:
        return len(self._packets)

    def put(self, packet: bytes) -> None:
        """Keep a packet; beyond the capacity the oldest goes."""
        key = opening_of(packet)
        self._packets[next(self._numbers) if key is None else key] = packet
        if len(self._packets) > self._capacity:
            del self._packets[next(iter(self._packets))]
            self.dropped_total += 1

    def take_all(self) -> list[bytes]:
        """Take out everything, oldest first."""
        packets = list(self._packets.values())
        self._packets.clear()
        return packets
