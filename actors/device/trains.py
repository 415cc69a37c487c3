"""The datagrams of several frames, sent with one call where they fit together.

A program that sends packet by packet gives the device many small frames. Sealed one behind the other they are a train
as well, as long as all have the same size but for the last, which may be shorter (`UDP_SEGMENT`, udp(7)), and the same
congestion mark: what it costs to send them is then shared by all. There is one buffer for a worker, so who seals into
it sends before anybody else does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

from ..batch.contract import MAX_DATAGRAMS, TRAIN_BYTES, Sealed

ROOM_BYTES: Final = 2 * TRAIN_BYTES
"""Whatever stands in the first half, any frame fits behind it."""

SendTrain: TypeAlias = Callable[[memoryview, int, int, int], int]
"""`IceAgent.send_train`: train, stride, bytes in all, congestion mark."""


class Trains:
    """The train that is being made up."""

    def __init__(self) -> None:
        self._buffer = memoryview(bytearray(ROOM_BYTES))
        self._start = 0
        self._end = 0
        self._stride = 0
        self._ecn = 0
        self._datagrams = 0

    def room(self) -> memoryview:
        """Return where the next frame is to be sealed; it has `TRAIN_BYTES`."""
        return self._buffer[self._end :]

    def add(self, sealed: Sealed, ecn: int, send: SendTrain) -> None:
        """What `room` gave has been sealed into: it goes with what waits, or after it."""
        if not self._fits(sealed, ecn):
            self._send(send)
            self._stride, self._ecn = sealed.stride, ecn
        self._end += sealed.total
        self._datagrams += sealed.datagrams
        if self._end > ROOM_BYTES - TRAIN_BYTES or self._datagrams >= MAX_DATAGRAMS:
            self.flush(send)

    def flush(self, send: SendTrain) -> None:
        """Send what waits. Then nothing waits, and the whole buffer is free."""
        self._send(send)
        self._start = self._end = 0

    def _fits(self, sealed: Sealed, ecn: int) -> bool:
        """The train so far has no shorter datagram at its end, and none of the new ones is longer than those."""
        if self._datagrams == 0 or ecn != self._ecn or (self._end - self._start) % self._stride:
            return False
        return sealed.stride == self._stride or (sealed.datagrams == 1 and sealed.total < self._stride)

    def _send(self, send: SendTrain) -> None:
        if self._datagrams:
            send(self._buffer[self._start : self._end], self._stride, self._end - self._start, self._ecn)
            self._start, self._datagrams = self._end, 0
