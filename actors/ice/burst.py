"""One burst of datagrams: what lay in a socket, read into one buffer, and given away as few times as possible.

The kernel gives datagrams one by one or, where it could merge them (`UDP_GRO`, udp(7)), as a train: equal ones of one
source in a row, the last one maybe shorter. It merges by address and length alone, so a STUN check can be the tail of a
train of data, and each datagram is looked at by itself; only where all begin alike is that done for all at once. STUN
is passed on at once, data when the burst has been read: to each agent once, unless the source or the ECN field (RFC
3168) changes in between. An agent gets its data in the order in which they arrived.

Pure, but for whom it calls.
"""

import struct
from array import array
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TypeVar

from .agent import Address
from .ancillary import Arrival
from .binding import is_stun
from .demultiplexer import DataReceiver, Demultiplexer

Batch = TypeVar("Batch")

BUFFER_BYTES = 512 * 1024
"""Of one burst: the caches of a processor hold it, and it has room for eight full trains."""
LONG_BUFFER_BYTES = 2 * BUFFER_BYTES
"""The same where Python opens what comes: much of what a burst costs there does not depend on its length."""
MAX_DATAGRAM_BYTES = 65_535
"""Also of a train. A burst is full where this does not fit any more."""
MAX_READS = 512
"""In one burst, the empty and the failed ones included."""
_DATA = 4
_DATA_TYPE = bytes([_DATA])
_DATA_HEADER = (0, 5, 6, 7)
"""Where the type and the upper 24 bits of the receiver index of a WireGuard data message are."""
_HEAD = struct.Struct("=Q")
_KEPT_DATAGRAMS = 64
"""What the spans of are kept for: as many as the kernel merges (UDP_GRO_CNT_MAX in Linux)."""
_KEEPALIVE_BYTES = 32
"""A data message without data (WireGuard paper 6.5)."""
_HANDSHAKES = tuple(struct.pack("<I", kind) for kind in (1, 2, 3))
"""How WireGuard's other messages begin. Idle clients renew their sessions with them; they may wait like keepalives."""


def spans_of(at: int, size: int, segment: int) -> "array[int]":
    """Return the spans of a train's datagrams; `size` and `segment` are positive. They are not to be changed."""
    return _spans_kept(at, size, segment) if size <= _KEPT_DATAGRAMS * segment else _spans_made(at, size, segment)


def _spans_made(at: int, size: int, segment: int) -> "array[int]":
    spans = array("I", (segment,)) * (2 * -(-size // segment))
    spans[::2] = array("I", range(at, at + size, segment))
    spans[-1] = (size - 1) % segment + 1
    return spans


_spans_kept = lru_cache(maxsize=256)(_spans_made)
"""While much comes, the same trains come to the same places."""


def begin_alike(buffer: memoryview, at: int, size: int, segment: int) -> bool:
    """Say whether all datagrams of a train have the same first eight bytes, where that can be found out at once: as
    far as places and lengths are multiples of eight. False: they have not, or it cannot.
    """
    if (at | segment | len(buffer)) & 7 or size < _HEAD.size:
        return False
    heads = buffer.cast("Q")[at >> 3 : at + size >> 3 : segment >> 3].tobytes()
    return heads == heads[: _HEAD.size] * -(-size // segment)


def is_uniform(buffer: memoryview, at: int, size: int, segment: int, offsets: tuple[int, ...]) -> bool:
    """Say whether all datagrams of a train have the same bytes at these offsets."""
    count = -(-size // segment)
    for offset in offsets:
        column = bytes(buffer[at + offset : at + size : segment])
        if column != column[:1] * count:
            return False
    return True


def give_all(batches: list[Batch], give: Callable[[Batch], object]) -> None:
    """Give away each; whoever raises costs the others nothing."""
    given = 0
    try:
        for batch in batches:
            given += 1
            give(batch)
    finally:
        if given < len(batches):
            give_all(batches[given:], give)


@dataclass(slots=True)
class _Batch:
    agent: DataReceiver
    host: str
    source: Address
    ecn: int
    buffer: memoryview
    spans: "array[int]" = field(default_factory=lambda: array("I"))

    @property
    def given(self) -> tuple[str, memoryview, "array[int]", Address, int]:
        return self.host, self.buffer, self.spans, self.source, self.ecn


class Burst:
    """Collects one burst after another: `take` what was read, then `deliver`."""

    def __init__(self, table: Demultiplexer, counters: Counter[str]) -> None:
        self._table = table
        self._counters = counters
        self._batches: list[_Batch] = []
        self._latest: dict[DataReceiver, _Batch] = {}
        self._head: tuple[int] | None = None
        """How the last datagram began that was somebody's data, the three below with it; None: it was something else.
        """
        self._arrival = Arrival(None)
        self._source: Address = ("", 0)
        self._spans = array("I")

    def take(self, buffer: memoryview, at: int, size: int, arrival: Arrival, source: Address) -> bool:
        """Take what one call has read to a place in the buffer: a datagram, or a train. False: it can wait, as STUN, a
        keepalive, or a handshake of WireGuard's.
        """
        if arrival.host is None:
            self._counters["arrived_nowhere"] += 1
            return False
        segment = arrival.segment if 0 < arrival.segment < size else size
        head = _HEAD.unpack_from(buffer, at) if size >= _HEAD.size else None
        is_another = head is not None and head == self._head  # of the same, as most are
        if is_another and arrival is self._arrival and source == self._source:
            if segment == size:
                self._spans.append(at)
                self._spans.append(size)
                return True
            if begin_alike(buffer, at, size, segment):
                self._spans.extend(spans_of(at, size, segment))
                return True
        self._head = None
        owner = self._owner_of_all(buffer, at, size, segment)
        if owner is None:
            is_data = False
            for start in range(at, at + max(size, 1), max(segment, 1)):
                is_data |= self._take_one(buffer, start, min(segment, at + size - start), arrival, source)
            return is_data
        spans = self._spans_for(owner, arrival, source, buffer)
        spans.extend(spans_of(at, size, segment))
        self._head, self._arrival, self._source, self._spans = head, arrival, source, spans
        return size != _KEEPALIVE_BYTES

    def take_run(self, buffer: memoryview, head: bytes, spans: bytes, arrival: Arrival, source: Address) -> bool:
        """Take what is alike: datagrams whose first eight bytes these are, a data message's, or one that begins
        otherwise. `spans` are those of an array('I'). False: as `take` has it.
        """
        self._head = None
        places = array("I")
        if arrival.host is None:
            self._counters["arrived_nowhere"] += len(spans) // (2 * places.itemsize)
            return False
        owner = self._table.owner_of(head[5:8]) if head[:1] == _DATA_TYPE else None
        places.frombytes(spans)
        if owner is not None:
            self._spans_for(owner, arrival, source, buffer).extend(places)
            return len(places) > 2 or places[1] > _KEEPALIVE_BYTES
        is_data = False
        for at in range(0, len(places), 2):
            is_data |= self._take_one(buffer, places[at], places[at + 1], arrival, source)
        return is_data

    def give_run(self, buffer: memoryview, head: bytes, spans: bytes, arrival: Arrival, source: Address) -> bool | None:
        """As `take_run` and `deliver` in one, of what is all that was read, if it is one agent's data. None: it is not,
        and nothing was done.
        """
        owner = self._table.owner_of(head[5:8]) if head[:1] == _DATA_TYPE else None
        if owner is None or arrival.host is None or self._batches:
            return None
        places = array("I")
        places.frombytes(spans)
        owner.take_batch(arrival.host, buffer, places, source, arrival.ecn)
        return len(places) > 2 or places[1] > _KEEPALIVE_BYTES

    def deliver(self) -> None:
        """Give everybody what was collected."""
        batches, self._batches = self._batches, []
        self._latest.clear()
        self._head = None
        give_all(batches, lambda batch: batch.agent.take_batch(*batch.given))

    def _owner_of_all(self, buffer: memoryview, at: int, size: int, segment: int) -> DataReceiver | None:
        """Return whose data a whole train is; None: look at each."""
        if size < _HEAD.size or buffer[at] != _DATA:
            return None
        is_mixed = segment < size and not begin_alike(buffer, at, size, segment)
        if is_mixed and not is_uniform(buffer, at, size, segment, _DATA_HEADER):
            return None
        return self._table.owner_of(bytes(buffer[at + 5 : at + 8]))

    def _take_one(self, buffer: memoryview, at: int, size: int, arrival: Arrival, source: Address) -> bool:
        host, datagram = arrival.host or "", bytes(buffer[at : at + size])
        if is_stun(datagram):
            session = self._table.session_for(datagram)
            if session is not None:
                session.take_stun(host, datagram, source)
            return False
        agents = self._table.agents_for(datagram, source)
        if len(agents) == 1:
            self._spans_for(agents[0], arrival, source, buffer).extend((at, size))
            return size != _KEEPALIVE_BYTES and datagram[:4] not in _HANDSHAKES
        for agent in agents:  # each may scribble over it
            spans = self._spans_for(agent, arrival, source, memoryview(bytearray(datagram)))
            spans.extend((0, size))
        return True

    def _spans_for(self, agent: DataReceiver, arrival: Arrival, source: Address, buffer: memoryview) -> "array[int]":
        """Return what the next spans of an agent are appended to."""
        batch = self._latest.get(agent)
        if batch is None or batch.source != source or batch.host != arrival.host or batch.ecn != arrival.ecn:
            batch = None
        if batch is None or batch.buffer is not buffer:
            batch = self._latest[agent] = _Batch(agent, arrival.host or "", source, arrival.ecn, buffer)
            self._batches.append(batch)
        return batch.spans
