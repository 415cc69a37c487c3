"""The flight recorder: a memory-mapped ring of fixed-size records, one file per worker.

It is always on. Because the file is mapped and shared, what a worker wrote is readable after `kill -9`: the kernel
keeps the pages. A record takes 64 bytes and well below a microsecond; the oldest are overwritten. Strings (addresses,
message names) are written once into a table in the same file and referred to by number.

A message that is handled takes one record: it is written when the handler starts, and completed in place when it
ends. So a record that says `STARTED` is of a handler that still runs, or ran when its process was killed. Small equal
messages that are handled back to back share a record: it counts them, ids upwards from its own, and each is counted
before its handler starts. That is what keeps a burst of 100,000 from costing, and from wiping out, all that was before.

Layout, little endian::

    0     magic "EXEUNTR2"   8   capacity (records)   16  records written ever   24  string bytes used
    32    pid                40  epoch                48  worker name (32 bytes, zero-padded)
    80    messages handled ever                       88  dead letters ever
    128   string table: entries of u16 length + UTF-8; an entry's number is its position in order, from 1
    128 + STRINGS_BYTES   the ring; of each record:
          0 at_ns  8 id  16 trace  24 cause  32 sender  36 to  40 message  44 kind  45 event  46 count
          48 nanoseconds waited in the mailbox   56 nanoseconds of handling
"""

from __future__ import annotations

import bisect
import itertools
import mmap
import os
import struct
import time
from collections.abc import Iterator
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

from .codec import Run
from .envelope import Envelope
from .errors import ExeuntError

MAGIC = b"EXEUNTR2"
STRINGS_BYTES = 512 * 1024  # about 15,000 names; later ones are recorded as "?"
DEFAULT_CAPACITY = 65_536  # records: 4 MB, some minutes of a busy control process

_HEADER_BYTES = 128
_RECORD = struct.Struct("<QQQQIIIBBHQQ")
_U16 = struct.Struct("<H")
_U64 = struct.Struct("<Q")
_RING = _HEADER_BYTES + STRINGS_BYTES
_WRITTEN, _HANDLED, _DEAD_LETTERS = 16, 80, 88  # where the header keeps what is counted
_FIRST_Q, _PER_RECORD_Q = _RING // 8, _RECORD.size // 8


class Event(IntEnum):
    """What a record says of an envelope."""

    SENT = 1
    RECEIVED = 2
    """An answer has reached its asker, or a system message the node that sees to it."""
    STARTED = 3
    """Its handler runs."""
    ENDED = 4
    FAILED = 5
    """Its handler raised."""
    DROPPED = 6
    """A dead letter: nobody will handle it."""
    REFUSED = 7
    """Its handler refused on purpose."""
    CANCELLED = 8
    """Nobody waited for its answer any more."""


class Record(NamedTuple):
    """One line of the flight recorder, its strings looked up."""

    at_ns: int
    """CLOCK_REALTIME: when it happened; of a handled message, when its handler started."""
    id: int
    trace: int
    cause: int
    sender: str
    to: str
    message: str
    kind: int
    event: int
    count: int = 1  # type: ignore[assignment]  # pyright: ignore[reportIncompatibleMethodOverride]
    """How many messages, ids upwards from `id`."""
    waited_ns: int = 0
    """Of a handled message: how long it was in the mailbox."""
    ran_ns: int = 0
    """Of a handled message: how long its handler took; 0 while it runs."""


class RingUnreadable(ExeuntError):
    """The file is not a flight recorder's, or was cut."""


class Recorder:
    """Writes one ring. Touched from one thread only."""

    def __init__(self, path: Path, *, worker: str, epoch: int, capacity: int = DEFAULT_CAPACITY) -> None:
        self.path = path
        self.capacity = capacity
        self.written = 0
        """Records ever."""
        self._strings: dict[str, int] = {}
        self._types: dict[type, int] = {}
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
        # Views of the same memory in other units: an assignment to one costs a tenth of a struct.pack_into.
        self._u8 = memoryview(self._map)
        self.u16 = self._u8.cast("H")
        """The whole file as 16-bit numbers."""
        self._u64 = self._u8.cast("Q")
        self._handled = 0

    def record(self, event: Event, envelope: Envelope, *, at_ns: int = 0, count: int = 1, waited_ns: int = 0) -> int:
        """Write one record; return its number, for `count`, `end` and `split`."""
        number = self.written
        body: object = envelope.body
        kind: type = type(body)
        strings = self._strings
        _RECORD.pack_into(
            self._map,
            _RING + (number % self.capacity) * 64,
            at_ns or time.time_ns(),
            envelope.id,
            envelope.trace,
            envelope.cause,
            strings.get(envelope.sender) or self._string(envelope.sender),
            strings.get(envelope.to) or self._string(envelope.to),
            self._types.get(kind) or self._type(kind),
            envelope.kind,
            event,
            count,
            waited_ns,
            0,
        )
        # After the record: a reader never sees a slot that was announced and not written.
        self.written = self._u64[2] = number + 1
        return number

    def sent(self, run: Run) -> None:
        """Write that a run leaves."""
        body = run.bodies[0]
        trace = run.trace or run.id
        first = Envelope(run.id, trace, run.cause, run.sender, run.to, run.kind, 0, body)
        self.record(Event.SENT, first, count=len(run.bodies))

    def start(self, envelope: Envelope, now_ns: int) -> int:
        """Write that a handler starts; return the record's number."""
        received_ns = envelope.received_ns
        return self.record(
            Event.STARTED, envelope, at_ns=now_ns, waited_ns=now_ns - received_ns if 0 < received_ns < now_ns else 0
        )

    def count_at(self, number: int) -> int:
        """Return where in `u16` a record keeps for how many messages it stands. It may be written there as long as
        `written` is less than its number plus the capacity.
        """
        return (_FIRST_Q + (number % self.capacity) * _PER_RECORD_Q) * 4 + 23

    def end(self, number: int, event: Event, ran_ns: int) -> None:
        """Complete a record: its handler has ended so."""
        if self.written - number <= self.capacity:  # else it has been overwritten
            at = _FIRST_Q + (number % self.capacity) * _PER_RECORD_Q
            self._u64[at + 7] = max(1, ran_ns)
            self._u8[at * 8 + 45] = event

    def handled(self, total: int) -> None:
        """Keep the number of messages that were handled where a killed process leaves it."""
        self._handled += total
        self._u64[_HANDLED // 8] = self._handled

    def dead_letters(self, total: int) -> None:
        """Keep the number of dead letters there, too."""
        self._u64[_DEAD_LETTERS // 8] = total

    def close(self) -> None:
        """Unmap. The file stays: it is the evidence."""
        for view in (self._u64, self.u16, self._u8):
            view.release()
        self._map.close()

    def _type(self, kind: type) -> int:
        number = self._types[kind] = self._string("None" if kind is type(None) else kind.__name__)
        return number

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
    handled_total: int = 0
    """How many messages its worker handled ever."""
    dead_letters_total: int = 0


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
    handled, dead_letters = struct.unpack_from("<QQ", data, _HANDLED)
    return Ring(worker, epoch, pid, written, records, handled, dead_letters)


def dead_letters_of(path: Path) -> int:
    """Return how many dead letters a worker had, by its ring; 0 where that cannot be read."""
    try:
        with path.open("rb") as file:
            header = file.read(_DEAD_LETTERS + 8)
    except OSError:
        return 0
    if len(header) < _DEAD_LETTERS + 8 or header[:8] != MAGIC:
        return 0
    return int(_U64.unpack_from(header, _DEAD_LETTERS)[0])


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
        at_ns, id_, trace, cause, sender, to, message, kind, event, count, waited_ns, ran_ns = fields
        yield Record(
            at_ns, id_, trace, cause, name(sender), name(to), name(message), kind, event, count, waited_ns, ran_ns
        )


_BEGUN = frozenset(Event) - {Event.SENT, Event.RECEIVED}


class HandledIds:
    """Which messages a worker had begun to handle, or had counted as dead letters, as far as its ring goes back."""

    def __init__(self, path: Path | None) -> None:
        """Read a ring; without one, nothing is known. Raises RingUnreadable, or OSError."""
        records = read_ring(path).records if path is not None else []
        ranges = sorted((record.id, record.count) for record in records if record.event in _BEGUN)
        self._firsts = [first for first, _ in ranges]
        # A message that was stashed is begun twice, the second time within another range: look at all before it, too.
        self._ends = list(itertools.accumulate((first + count for first, count in ranges), max))

    def __contains__(self, message_id: int) -> bool:
        index = bisect.bisect_right(self._firsts, message_id) - 1
        return index >= 0 and message_id < self._ends[index]
