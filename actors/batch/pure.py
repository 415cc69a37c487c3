"""The kernel in Python: what every other kernel is held against, and what runs where there is no other.

The cipher is cryptography's, which works in place on slices of buffers; all around it is done for a whole frame or
burst at once where that pays.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable, Sequence
from itertools import repeat
from operator import lt
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from .coalesce import Merger, Place, copy_payloads, write, write_one
from .contract import MAX_DATAGRAMS, VNET_BYTES, Opened, ReadFrames, Receive, Window
from .headers import packet_bytes
from .packet import Run, read_packet
from .sealing import ENOUGH, NONCE, TAG_BYTES, TRANSPORT, TYPE, PureSealing
from .window import is_fresh, mark, mark_run

if TYPE_CHECKING:
    from .columns import Columns
    from .lanes import Lanes

_TYPE_BYTES: Final = TYPE.to_bytes(4, "little")
_HEADER_BYTES: Final = TRANSPORT.size
_HEAD_BYTES: Final = 8
"""Type and receiver index: what all messages to one session begin with."""
_AROUND_BYTES: Final = _HEADER_BYTES + TAG_BYTES
"""What a datagram has around its plaintext."""
_COUNTER: Final = struct.Struct("<Q")
_ENOUGH_HEADS: Final = 24
"""And from so many on where they do no more than compare."""

_REFUSED: Final = -1
"""In place of the size of a plaintext."""


class PureOpening:
    """Opens under one key, each counter once."""

    __slots__ = ("_columns", "_decrypt_into", "_window")

    def __init__(self, key: bytes, window: Window, columns: Columns | None) -> None:
        self._decrypt_into = ChaCha20Poly1305(key).decrypt_into
        self._window = window
        self._columns = columns

    def open(
        self, buffer: memoryview, spans: array[int], out: memoryview, *, limit: int, coalesce: bool = True
    ) -> Opened:
        """See `Opening`."""
        if len(spans) == 2:
            return self._open_alone(buffer, spans[0], spans[1], out, limit)
        replayed = over_limit = 0
        if self._columns is not None and ENOUGH <= len(spans) // 2 <= MAX_DATAGRAMS:
            opened = self._open_train(self._columns, buffer, spans, limit)
        else:
            opened = self._open_few(buffer, spans, limit)
        if opened is None:
            sizes, replayed, over_limit = self._open_each(buffer, spans, limit)
            opened = sizes, _runs_of(spans, sizes)
        sizes, runs = opened
        refused = sizes.count(_REFUSED)
        frames, without = self._frames(buffer, runs, out) if coalesce else _alone(buffer, runs, out)
        octets = sum([count * (size + _AROUND_BYTES) for _, count, _, size in runs])
        keepalives = sizes.count(0)
        forged = refused - replayed - over_limit
        without -= keepalives
        return Opened(frames, len(sizes) - refused, octets, keepalives, replayed, forged, without, over_limit)

    def _open_alone(self, buffer: memoryview, offset: int, length: int, out: memoryview, limit: int) -> Opened:
        """Open a burst of one, as most are."""
        counter = _COUNTER.unpack_from(buffer, offset + 8)[0]
        if counter >= limit:
            return Opened((), 0, 0, 0, 0, 0, 0, 1)
        state = self._window.state
        if not is_fresh(state, counter):
            return Opened((), 0, 0, 0, 1, 0, 0, 0)
        size = self._open_one(buffer, offset, length, counter)
        if size == _REFUSED:
            return Opened((), 0, 0, 0, 0, 1, 0, 0)
        mark(state, counter)
        start = offset + _HEADER_BYTES
        packet = packet_bytes(buffer, start, start + size)
        if not packet:
            return Opened((), 1, length, int(size == 0), 0, 0, int(size != 0), 0)
        write_one(buffer, start, packet, out, 0)
        return Opened(((0, VNET_BYTES + packet, 1),), 1, length, 0, 0, 0, 0, 0)

    def _open_train(
        self, columns: Columns, buffer: memoryview, spans: array[int], limit: int
    ) -> tuple[list[int], list[Run]] | None:
        """Open what came in order; return the size of each plaintext, and where they are. None: a counter may not be
        used, or it is not above the one before it, and nothing was done.
        """
        places = columns.runs_of(spans)
        found = columns.in_order(buffer, spans, places)
        if found is None:
            return None
        counters, in_a_row = found
        first = int(counters[0])
        if first < self._window.state[0] or counters[-1] >= limit:
            return None
        sealed: list[memoryview] = []
        plain: list[memoryview] = []
        runs: list[Run] = []
        for at, many, stride, length in places:
            run = start, _, _, size = at + _HEADER_BYTES, many, stride, length - _AROUND_BYTES
            runs.append(run)
            if many < ENOUGH:
                starts = range(start, start + many * stride, stride)
                plain += [buffer[at : at + size] for at in starts]
                sealed += [buffer[at : at + size + TAG_BYTES] for at in starts]
            else:
                kept = columns.slices(buffer, run, TAG_BYTES)
                plain += kept[0][:many]
                sealed += kept[1][:many]
        sizes = self._decrypt(columns.nonces(counters), sealed, plain)
        is_whole = _REFUSED not in sizes
        if in_a_row and is_whole:
            mark_run(self._window.state, first, len(sizes))
        else:
            self._mark(counters.tolist(), sizes)
        return sizes, runs if is_whole else _runs_of(spans, sizes)

    def _open_few(self, buffer: memoryview, spans: array[int], limit: int) -> tuple[list[int], list[Run]] | None:
        """Do the same without columns."""
        offsets, lengths = spans[::2].tolist(), spans[1::2].tolist()
        counters = [_COUNTER.unpack_from(buffer, offset + 8)[0] for offset in offsets]
        if not counters or counters[0] < self._window.state[0] or counters[-1] >= limit:
            return None
        if not all(map(lt, counters, counters[1:])):
            return None
        places = [(at + _HEADER_BYTES, at + length) for at, length in zip(offsets, lengths, strict=True)]
        sealed = [buffer[start:end] for start, end in places]
        plain = [buffer[start : end - TAG_BYTES] for start, end in places]
        sizes = self._decrypt([NONCE.pack(counter) for counter in counters], sealed, plain)
        self._mark(counters, sizes)
        return sizes, _runs_of(spans, sizes)

    def _decrypt(
        self, nonces: Sequence[bytes | memoryview], sealed: list[memoryview], plain: list[memoryview]
    ) -> list[int]:
        sizes: list[int] = []
        work = map(self._decrypt_into, nonces, sealed, repeat(None), plain)
        while len(sizes) < len(nonces):
            try:
                sizes += work  # keeps what it has got when one fails; the next time it goes on after that one
            except InvalidTag:
                sizes.append(_REFUSED)
        return sizes

    def _mark(self, counters: list[int], sizes: list[int]) -> None:
        """Mark the counters, which ascend, of what was opened."""
        state = self._window.state
        if counters[-1] - counters[0] == len(counters) - 1 and _REFUSED not in sizes:
            mark_run(state, counters[0], len(counters))
            return
        for counter, size in zip(counters, sizes, strict=True):
            if size != _REFUSED:
                mark(state, counter)

    def _open_each(self, buffer: memoryview, spans: array[int], limit: int) -> tuple[list[int], int, int]:
        """Open what may be opened, one after another; return their sizes, how many replayed, and over the limit."""
        state = self._window.state
        sizes: list[int] = []
        replayed = over_limit = 0
        for offset, length in zip(spans[::2], spans[1::2], strict=True):
            size = _REFUSED
            counter = _COUNTER.unpack_from(buffer, offset + 8)[0]
            if counter >= limit:
                over_limit += 1
            elif not is_fresh(state, counter):
                replayed += 1
            else:
                size = self._open_one(buffer, offset, length, counter)
                if size != _REFUSED:
                    mark(state, counter)
            sizes.append(size)
        return sizes, replayed, over_limit

    def _open_one(self, buffer: memoryview, offset: int, length: int, counter: int) -> int:
        start, end = offset + _HEADER_BYTES, offset + length
        try:
            return self._decrypt_into(NONCE.pack(counter), buffer[start:end], None, buffer[start : end - TAG_BYTES])
        except InvalidTag:
            return _REFUSED

    def _frames(self, buffer: memoryview, runs: list[Run], out: memoryview) -> tuple[list[Place], int]:
        """Write frames of what was opened; return where they are, and how many times there was no packet."""
        merger = Merger(buffer)
        without = 0
        for run in runs:
            without += self._merge(buffer, run, merger)
        copy = copy_payloads if self._columns is None else self._columns.copy_payloads
        return write(buffer, merger.frames, out, copy), without

    def _merge(self, buffer: memoryview, run: Run, merger: Merger) -> int:
        """Merge what can be of a run of plaintexts; return how many of them were no packets."""
        start, count, stride, there = run
        columns = self._columns
        without = by_one = 0
        while count:
            taken = 0
            size = packet_bytes(buffer, start, start + there)
            if size and columns is not None and count >= ENOUGH and by_one <= 0:
                for chunk in columns.read_run(buffer, (start, count, stride, size)):
                    merger.add(chunk)
                    taken += chunk.run[1]
                by_one = ENOUGH if taken < ENOUGH else 0  # they are mixed
            if not taken:
                taken = 1
                if size:
                    merger.add_one(read_packet(buffer, start, size), start, size)
                else:
                    without += 1
            by_one -= taken
            start += taken * stride
            count -= taken
        return without


def _runs_of(spans: array[int], sizes: list[int]) -> list[Run]:
    """Return the plaintexts of these sizes, without those that were refused, as runs."""
    runs: list[Run] = []
    start = count = stride = size = 0
    for offset, there in zip(spans[::2], sizes, strict=True):
        if there == _REFUSED:
            continue
        at = offset + _HEADER_BYTES
        if count == 1 and there == size and at > start:
            stride, count = at - start, 2
        elif count > 1 and there == size and at == start + count * stride:
            count += 1
        else:
            if count:
                runs.append((start, count, stride, size))
            start, count, stride, size = at, 1, 0, there
    if count:
        runs.append((start, count, stride, size))
    return runs


def _alone(buffer: memoryview, runs: list[Run], out: memoryview) -> tuple[list[Place], int]:
    """Write each packet as a frame of its own; return as `PureOpening._frames`."""
    places: list[Place] = []
    begin = without = 0
    for first, count, stride, there in runs:
        for number in range(count):
            start = first + number * stride
            size = packet_bytes(buffer, start, start + there)
            if size:
                end = begin + VNET_BYTES + size
                write_one(buffer, start, size, out, begin)
                places.append((begin, end, 1))
                begin = end
            else:
                without += 1
    return places, without


class PureKernel:
    """Makes them. Numpy is looked for when the first is made."""

    name = "pure"
    receive: Receive | None = None
    read_frames: ReadFrames | None = None
    lanes: Callable[[], Lanes] | None = None

    def __init__(self, *, with_numpy: bool = True) -> None:
        self._with_numpy = with_numpy
        self._columns: Columns | None = None

    def prepare(self) -> None:
        """Import numpy, which takes a eighth of a second, if it is there; harmless when done."""
        if self._with_numpy and self._columns is None:
            try:
                from .columns import Columns
            except ImportError:
                self._with_numpy = False
            else:
                self._columns = Columns()

    def index_of(self, buffer: memoryview, spans: array[int], /) -> int | None:
        """See `Kernel`."""
        if not spans or len(spans) > 2 * MAX_DATAGRAMS:
            return None
        head = bytes(buffer[spans[0] : spans[0] + _HEAD_BYTES])
        if head[:4] != _TYPE_BYTES:
            return None
        if self._columns is not None and len(spans) >= 2 * _ENOUGH_HEADS:
            alike = self._columns.begin_alike(buffer, spans, _AROUND_BYTES)
        elif min(spans[1::2]) < _AROUND_BYTES:
            return None
        else:
            heads = b"".join([buffer[at : at + _HEAD_BYTES] for at in spans[::2]])
            alike = heads == head * (len(spans) // 2)
        return int.from_bytes(head[4:], "little") if alike else None

    def sealing(self, key: bytes, remote_index: int) -> PureSealing:
        """See `Kernel`."""
        self.prepare()
        return PureSealing(key, remote_index, self._columns)

    def opening(self, key: bytes, window: Window) -> PureOpening:
        """See `Kernel`."""
        self.prepare()
        return PureOpening(key, window, self._columns)


KERNEL: Final = PureKernel()
