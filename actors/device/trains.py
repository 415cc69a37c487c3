"""The datagrams of several frames, sent with one call where they fit together.

A program that sends packet by packet gives the device many small frames. Sealed one behind the other they are a train
as well, as long as all have the same size but for the last, which may be shorter (`UDP_SEGMENT`, udp(7)), and the same
congestion mark: what it costs to send them is then shared by all. There is one buffer for a worker, so who seals into
it sends before anybody else does.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

from ..batch.contract import MAX_DATAGRAMS, TRAIN_BYTES, VNET_BYTES, Sealed
from .ecn import ecn_of

ROOM_BYTES: Final = 2 * TRAIN_BYTES
"""Whatever stands in the first half, any frame fits behind it."""

SendTrain: TypeAlias = Callable[[memoryview, int, int, int], int]
"""`IceAgent.send_train`: train, stride, bytes in all, congestion mark."""
Seal: TypeAlias = Callable[[memoryview, "array[int]", memoryview], Sequence[Sealed] | None]
"""Seal frames, which are at spans of a buffer, into a train; see `Sealing.seal_each`. None: they go another way."""


class Trains:
    """The train that is being made up."""

    def __init__(self) -> None:
        self.buffer = self._buffer = memoryview(bytearray(ROOM_BYTES))
        """Anybody's while nothing waits."""
        self._start = 0
        self._end = 0
        self._stride = 0
        self._ecn = 0
        self._datagrams = 0

    def take(self, buffer: memoryview, spans: array[int], seal: Seal, send: SendTrain) -> int:
        """Seal frames, and have them wait for more of their kind; return how many of them were malformed."""
        malformed = 0
        while spans:
            if self._end > ROOM_BYTES - TRAIN_BYTES:
                self.flush(send)
            sealed = seal(buffer, spans, self._buffer[self._end :])
            if sealed is None:
                break
            for one, at in zip(sealed, spans[::2], strict=False):
                if one.datagrams:
                    self._add(one, ecn_of(buffer[at + VNET_BYTES : at + VNET_BYTES + 2]), send)
                else:
                    malformed += 1
            spans = spans[2 * len(sealed) :]
        return malformed

    def _add(self, sealed: Sealed, ecn: int, send: SendTrain) -> None:
        """What was sealed behind the last goes with what waits, or after it."""
        if not self._fits(sealed, ecn):
            self._send(send)
            self._stride, self._ecn = sealed.stride, ecn
        self._end += sealed.total
        self._datagrams += sealed.datagrams
        if self._datagrams >= MAX_DATAGRAMS:
            self._send(send)

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
