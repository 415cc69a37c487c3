"""The flight recorder: a memory-mapped ring of fixed-size records, one file per worker.

It is always on. Because the file is mapped and shared, what a worker wrote is readable after `kill -9`: the kernel
keeps the pages. A record takes 48 bytes and about a microsecond; the oldest are overwritten. Strings (addresses,
message names) are written once into a table in the same file and referred to by number.

Layout, little endian::

    0     magic "EXEUNTR1"   8   capacity (records)   16  records written ever   24  string bytes used
    32    pid                40  epoch                48  worker name (32 bytes, zero-padded)
    128   string table: entries of u16 length + UTF-8; an entry's number is its position in order, from 1
    128 + STRINGS_BYTES   the ring
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from collections.abc import Iterator
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

from .envelope import Envelope
from .errors import ExeuntError

MAGIC = b"EXEUNTR1"
STRINGS_BYTES = 512 * 1024  # about 15,000 names; later ones are recorded as "?"
DEFAULT_CAPACITY = 65_536  # records: 3 MB, some minutes of a busy control process

_HEADER_BYTES = 128
_RECORD = struct.Struct("<QQQQIIIBBH")
_U64 = struct.Struct("<Q")
_U16 = struct.Struct("<H")
_RING = _HEADER_BYTES + STRINGS_BYTES
_WRITTEN = 16  # where the header keeps the number of records written ever


class Event(IntEnum):
    """What a record says of an envelope."""

    SENT = 1
    RECEIVED = 2
    """It is in the recipient's mailbox."""
    STARTED = 3
    """Its handler runs."""
    ENDED = 4
    FAILED = 5
    """Its handler raised."""
    DROPPED = 6
    """A dead letter: nobody will handle it."""
    REFUSED = 7
    """Its handler refused on purpose."""


class Record(NamedTuple):
    """One line of the flight recorder, its strings looked up."""

    at_ns: int
    """CLOCK_REALTIME."""
    id: int
    trace: int
    cause: int
    sender: str
    to: str
    message: str
    kind: int
    event: int


class RingUnreadable(ExeuntError):
    """The file is not a flight recorder's, or was cut."""


class Recorder:
    """Writes one ring. Touched from one thread only."""

    def __init__(self, path: Path, *, worker: str, epoch: int, capacity: int = DEFAULT_CAPACITY) -> None:
        self.path = path
        self._capacity = capacity
        self._written = 0
        self._strings: dict[str, int] = {}
        self._strings_used = 0
        size = _RING + capacity * _RECORD.size
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(descriptor, size)
            self._map = mmap.mmap(descriptor, size)
        finally:
            os.close(descriptor)
        struct.pack_into("<QQQQQ", self._map, 8, capacity, 0, 0, os.getpid(), epoch)
        self._map[48:80] = worker.encode()[:32].ljust(32, b"\0")
        self._map[:8] = MAGIC

    def record(self, event: Event, envelope: Envelope) -> None:
        """Write one record."""
        body = envelope.body
        position = _RING + (self._written % self._capacity) * _RECORD.size
        _RECORD.pack_into(
            self._map,
            position,
            time.time_ns(),
            envelope.id,
            envelope.trace,
            envelope.cause,
            self._string(envelope.sender),
            self._string(envelope.to),
            self._string(type(body).__name__ if body is not None else "None"),
            envelope.kind,
            event,
            0,
        )
        self._written += 1  # after the record: a reader never sees a slot that was announced and not written
        _U64.pack_into(self._map, _WRITTEN, self._written)

    def close(self) -> None:
        """Unmap. The file stays: it is the evidence."""
        self._map.close()

    def _string(self, text: str) -> int:
        number = self._strings.get(text)
        return number if number is not None else self._new_string(text)

    def _new_string(self, text: str) -> int:
        data = text.encode()[:200]
        if self._strings_used + 2 + len(data) > STRINGS_BYTES:
            return 0
        position = _HEADER_BYTES + self._strings_used
        _U16.pack_into(self._map, position, len(data))
        self._map[position + 2 : position + 2 + len(data)] = data
        self._strings_used += 2 + len(data)
        _U64.pack_into(self._map, 24, self._strings_used)
        number = self._strings[text] = len(self._strings) + 1
        return number


class Ring(NamedTuple):
    """What a ring file holds."""

    worker: str
    epoch: int
    pid: int
    written_total: int
    records: list[Record]


def read_ring(path: Path, *, after: int = 0) -> Ring:
    """Read a ring, of a living or a dead worker; with `after`, without its first so many records ever. Raises
    RingUnreadable, or OSError.

    Slots that the writer reached while we read are left out, and so is the one that it would write next: a process
    that was killed may have written half of it. So a full ring gives one record fewer than its capacity.
    """
    with path.open("rb") as file:
        data = file.read()
        file.seek(_WRITTEN)
        meanwhile = file.read(8)
    if len(data) < _RING or len(meanwhile) < 8 or data[:8] != MAGIC:
        raise RingUnreadable(f"{path.name} is not a flight recorder's file")
    capacity, written, used, pid, epoch = struct.unpack_from("<QQQQQ", data, 8)
    if len(data) < _RING + capacity * _RECORD.size or used > STRINGS_BYTES:
        raise RingUnreadable(f"{path.name} is cut short")
    strings = ["?", *_read_strings(data, used)]
    oldest = max(after, written - capacity, _U64.unpack(meanwhile)[0] + 1 - capacity)
    records = list(_read_records(data, capacity, range(min(oldest, written), written), strings))
    worker = data[48:80].rstrip(b"\0").decode(errors="replace")
    return Ring(worker, epoch, pid, written, records)


def _read_strings(data: bytes, used: int) -> Iterator[str]:
    position, end = _HEADER_BYTES, _HEADER_BYTES + used
    while position + 2 <= end:
        (length,) = _U16.unpack_from(data, position)
        yield data[position + 2 : position + 2 + length].decode(errors="replace")
        position += 2 + length


def _read_records(data: bytes, capacity: int, indexes: range, strings: list[str]) -> Iterator[Record]:
    def name(number: int) -> str:
        return strings[number] if number < len(strings) else "?"

    for index in indexes:
        fields = _RECORD.unpack_from(data, _RING + (index % capacity) * _RECORD.size)
        at_ns, id_, trace, cause, sender, to, message, kind, event, _ = fields
        yield Record(at_ns, id_, trace, cause, name(sender), name(to), name(message), kind, event)
