"""What a busy client of `busy` has on its way: trains of datagrams with numbers, and which of them are lost. Pure.

A train is one frame, as the device gives it when a program sends with `UDP_SEGMENT`. Its datagrams have its number in
their first byte, and come back in order: when one of a later train is back, what is missing of those before it is lost.
"""

from __future__ import annotations

import socket
import struct
from typing import Final

from exeunt.actors.batch import vnet
from exeunt.actors.batch.contract import VNET_BYTES

DATAGRAM_BYTES: Final = 1200
TRAIN_MOST: Final = 48
"""Datagrams of a train; with their headers they are less than 64 kB."""
_NUMBERS: Final = 256
_HEADERS: Final = struct.Struct("!BBHHHBBH4s4sHHHH")
_HEADERS_BYTES: Final = VNET_BYTES + _HEADERS.size
_PORT: Final = 40_000
_SOURCE_PORT_AT: Final = VNET_BYTES + 20


class Window:
    """How many more datagrams of one client may go."""

    def __init__(self, datagrams: int, train: int) -> None:
        """So many are on their way at most, in trains of so many."""
        self.echoed = 0
        """How many came back."""
        self.lost = 0
        self._train = train
        self._room = datagrams // train * train
        assert self._room < _NUMBERS * train, "two trains would have one number"
        self._away: dict[int, int] = {}
        """How many of each train have not come back, in the order in which they were sent."""
        self._next = 0
        self._echoed_before = 0

    def next_train(self) -> tuple[int, int] | None:
        """Return the number and the size of the train that is to be sent now; None: no more may go."""
        if self._room < self._train:
            return None
        number = self._next
        self._next = (number + 1) % _NUMBERS
        self._room -= self._train
        self._away[number] = self._train
        return number, self._train

    def take(self, numbers: bytes) -> None:
        """Datagrams with these numbers have come back, in this order."""
        self.echoed += len(numbers)
        while numbers:
            rest = numbers.lstrip(numbers[:1])
            self._take_of(numbers[0], len(numbers) - len(rest))
            numbers = rest

    def mend(self) -> None:
        """If nothing came back since the last time, nothing will: all are lost."""
        if self.echoed == self._echoed_before:
            self._lose(list(self._away))
        self._echoed_before = self.echoed

    def _take_of(self, number: int, count: int) -> None:
        if number not in self._away:
            return  # it was taken for lost
        numbers = list(self._away)
        if numbers[0] != number:
            self._lose(numbers[: numbers.index(number)])
        self._room += count
        self._away[number] -= count
        if self._away[number] <= 0:
            del self._away[number]

    def _lose(self, numbers: list[int]) -> None:
        for number in numbers:
            lost = self._away.pop(number)
            self.lost += lost
            self._room += lost


class Frames:
    """Makes frames, one after another in the same buffer."""

    def __init__(self, port: int) -> None:
        """They are for this port."""
        self._port = port
        self._buffer = memoryview(bytearray(_HEADERS_BYTES + TRAIN_MOST * DATAGRAM_BYTES))

    def make(self, source: bytes, destination: bytes, number: int, datagrams: int) -> memoryview:
        """Return the frame of a train between two IPv4 addresses; it is good until the next one is made."""
        size = _HEADERS.size + datagrams * DATAGRAM_BYTES
        frame = self._buffer[: VNET_BYTES + size]
        # Lengths, checksums and ids of each packet are left to whoever cuts the frame.
        vnet.HEADER.pack_into(frame, 0, vnet.NEEDS_CSUM, vnet.GSO_UDP_L4, _HEADERS.size, DATAGRAM_BYTES, 20, 6)
        ip = 0x45, 0, size, 0, 0, 64, socket.IPPROTO_UDP, 0, source, destination
        _HEADERS.pack_into(frame, VNET_BYTES, *ip, _PORT, self._port, size - 20, 0)
        frame[_HEADERS_BYTES::DATAGRAM_BYTES] = bytes([number]) * datagrams
        return frame

    def numbers(self, frame: memoryview) -> bytes:
        """Return the numbers of the datagrams in a frame that has come back; empty: it is something else."""
        is_whole = len(frame) > _HEADERS_BYTES and not (len(frame) - _HEADERS_BYTES) % DATAGRAM_BYTES
        is_udp = is_whole and frame[VNET_BYTES] == 0x45 and frame[VNET_BYTES + 9] == socket.IPPROTO_UDP
        ours = is_udp and int.from_bytes(frame[_SOURCE_PORT_AT : _SOURCE_PORT_AT + 2], "big") == self._port
        return bytes(frame[_HEADERS_BYTES::DATAGRAM_BYTES]) if ours else b""
