"""Inner packets as an attacker makes them, and who sees which ones arrive. Linux: packet(7)."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable
from ipaddress import ip_address
from typing import Final

from exeunt.clients.lab import Namespace

_ETH_P_ALL: Final = 3
_PACKET_OUTGOING: Final = 4
_UDP: Final = 17
_PATIENCE_S: Final = 10.0


def udp_packet(source: str, destination: str, port: int, payload: bytes) -> bytes:
    """Return an IP packet with a UDP datagram to `port`, from the same port; right in everything but its honesty."""
    ends = ip_address(source).packed + ip_address(destination).packed
    datagram = struct.pack(">HHHH", port, port, 8 + len(payload), 0) + payload
    pseudo = ends + struct.pack(">IxxxB", len(datagram), _UDP)
    checked = datagram[:6] + struct.pack(">H", _checksum(pseudo + datagram) or 0xFFFF) + datagram[8:]
    if len(ends) == 32:
        return struct.pack(">IHBB", 6 << 28, len(checked), _UDP, 64) + ends + checked
    header = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(checked), 1, 0, 64, _UDP, 0) + ends
    return header[:10] + struct.pack(">H", _checksum(header)) + header[12:] + checked


def _checksum(data: bytes) -> int:
    padded = data + bytes(len(data) % 2)
    words: tuple[int, ...] = struct.unpack(f">{len(padded) // 2}H", padded)
    total = sum(words)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


class Listener:
    """A UDP socket on every address of a place."""

    def __init__(self, place: Namespace, port: int) -> None:
        self._socket = place.run(lambda: _udp_socket(port))
        self.heard: list[tuple[bytes, tuple[str, int]]] = []
        """Payloads, and where they came from."""

    def listen(self) -> None:
        """Take what has arrived."""
        while True:
            try:
                payload, source = self._socket.recvfrom(2048)
            except BlockingIOError:
                return
            self.heard.append((payload, (source[0], source[1])))

    def answer(self, payload: bytes, whom: tuple[str, int]) -> None:
        """Send from the socket's port."""
        self._socket.sendto(payload, whom)

    def wait_for(self, payload: bytes) -> None:
        """Wait until a payload has arrived. Fails after ten seconds."""
        wait_until(lambda: payload in self.payloads, f"{payload!r} did not arrive")

    @property
    def payloads(self) -> list[bytes]:
        """All that arrived so far."""
        self.listen()
        return [payload for payload, _ in self.heard]

    def close(self) -> None:
        """Hear nothing more."""
        self._socket.close()


class Tap:
    """What comes out of a tunnel's device on a host: after the pump's checks, before the firewall's."""

    def __init__(self, place: Namespace, device: str) -> None:
        self._socket = place.run(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_ALL)))
        self._socket.setblocking(False)
        self._socket.bind((device, _ETH_P_ALL))
        self._packets: list[bytes] = []

    def saw(self, marker: bytes) -> list[bytes]:
        """Return the packets so far that have these bytes in them."""
        while True:
            try:
                packet, where = self._socket.recvfrom(65_535)
            except BlockingIOError:
                return [packet for packet in self._packets if marker in packet]
            if where[2] != _PACKET_OUTGOING:
                self._packets.append(packet)

    def close(self) -> None:
        """See nothing more."""
        self._socket.close()


def wait_until(test: Callable[[], bool], otherwise: str) -> None:
    """Poll until something is true. Fails after ten seconds."""
    deadline = time.monotonic() + _PATIENCE_S
    while not test():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.01)


def _udp_socket(port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    sock.bind(("::", port))
    sock.setblocking(False)
    return sock
