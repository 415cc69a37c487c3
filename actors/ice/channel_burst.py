"""One burst of what a TURN server sent: data out of its channels (RFC 8656 section 12), and everything else.

ChannelData is a header of 4 bytes, channel and length, before a datagram of the peer's. It is taken off by looking
past it. Checks of the peer go the way of the server's own messages, one by one and at once; data is collected, and
given away for each peer in a row. Pure, but for whom it calls.
"""

import struct
from array import array
from collections import Counter
from collections.abc import Callable, Mapping

from .agent import Address, ignore
from .binding import is_stun
from .burst import give_all, is_uniform

CHANNEL_HEADER = struct.Struct("!HH")
_WIREGUARD_DATA = 4
_MIN_DATA_BYTES = CHANNEL_HEADER.size + 32


def is_channel_data(first: int) -> bool:
    """Tell ChannelData from STUN by the first byte."""
    return first & 0xC0 == 0x40


class ChannelBurst:
    """Collects one burst after another: `take` what was read, then `deliver`."""

    def __init__(
        self, channels: Mapping[int, Address], on_message: Callable[[bytes], None], counters: Counter[str]
    ) -> None:
        """`channels` says who is behind which."""
        self._channels = channels
        self.on_message = on_message
        """Gets messages of the server, and STUN of peers framed."""
        self._counters = counters
        self._batches: list[tuple[memoryview, array[int], Address, int]] = []
        self.on_data: Callable[[memoryview, array[int], Address, int], object] = ignore
        """Gets a buffer, which is overwritten afterwards, spans in it, the peer that they come from, and their ECN
        field."""

    def take(self, buffer: memoryview, at: int, size: int, segment: int, ecn: int) -> None:
        """Take a message or, with a segment, a train of messages of that length, the last one maybe shorter."""
        if not 0 < segment < size:
            self._take_one(buffer, at, size, ecn)
        elif not self._take_all(buffer, at, size, segment, ecn):
            for start in range(at, at + size, segment):
                self._take_one(buffer, start, min(segment, at + size - start), ecn)

    def take_run(self, buffer: memoryview, head: bytes, spans: "array[int]", ecn: int) -> None:
        """Take what begins alike: WireGuard data in a channel, whose first eight bytes these are, or something else."""
        number, length = CHANNEL_HEADER.unpack_from(head) if len(head) >= CHANNEL_HEADER.size else (0, 0)
        peer, shortest = self._channels.get(number), min(spans[1::2]) - CHANNEL_HEADER.size
        if peer is None or not _MIN_DATA_BYTES - CHANNEL_HEADER.size <= length <= shortest:
            for at in range(0, len(spans), 2):
                self._take_one(buffer, spans[at], spans[at + 1], ecn)
            return
        taken = array("I", (length,)) * len(spans)
        taken[::2] = array("I", [at + CHANNEL_HEADER.size for at in spans[::2]])
        self._spans_for(buffer, peer, ecn).extend(taken)

    def deliver(self) -> None:
        """Give away what was collected."""
        batches, self._batches = self._batches, []
        give_all(batches, lambda batch: self.on_data(*batch))

    def _take_one(self, buffer: memoryview, at: int, size: int, ecn: int) -> None:
        if size < CHANNEL_HEADER.size or not is_channel_data(buffer[at]):
            self.on_message(bytes(buffer[at : at + size]))
            return
        number, length = CHANNEL_HEADER.unpack_from(buffer, at)
        peer, start = self._channels.get(number), at + CHANNEL_HEADER.size
        if peer is None or length > size - CHANNEL_HEADER.size:
            self._counters["malformed_turn"] += 1
        elif is_stun(buffer[start : start + length]):
            self.on_message(bytes(buffer[at : at + size]))
        else:
            self._spans_for(buffer, peer, ecn).extend((start, length))

    def _take_all(self, buffer: memoryview, at: int, size: int, segment: int, ecn: int) -> bool:
        """Take a train of WireGuard data in one channel; False: it is something else."""
        last = at + (size - 1) // segment * segment
        if segment < _MIN_DATA_BYTES or at + size - last < _MIN_DATA_BYTES:
            return False
        number, length = CHANNEL_HEADER.unpack_from(buffer, at)
        _, last_length = CHANNEL_HEADER.unpack_from(buffer, last)
        peer = self._channels.get(number)
        if peer is None or not is_channel_data(buffer[at]) or buffer[at + CHANNEL_HEADER.size] != _WIREGUARD_DATA:
            return False
        if length > segment - CHANNEL_HEADER.size or last_length > at + size - last - CHANNEL_HEADER.size:
            return False
        if not is_uniform(buffer, at, size, segment, (0, 1, CHANNEL_HEADER.size)):
            return False
        if not is_uniform(buffer, at, last - at, segment, (2, 3)):
            return False
        first = at + CHANNEL_HEADER.size
        spans = array("I", (length,)) * (2 * ((last - at) // segment + 1))
        spans[::2] = array("I", range(first, last + CHANNEL_HEADER.size + 1, segment))
        spans[-1] = last_length
        self._spans_for(buffer, peer, ecn).extend(spans)
        return True

    def _spans_for(self, buffer: memoryview, peer: Address, ecn: int) -> "array[int]":
        """Return what the next spans are appended to."""
        if self._batches:
            latest = self._batches[-1]
            if latest[0] is buffer and latest[2] == peer and latest[3] == ecn:
                return latest[1]
        spans = array("I")
        self._batches.append((buffer, spans, peer, ecn))
        return spans
