"""The kernel in Python: what every other kernel is held against, and what runs where there is no other.

The cipher is cryptography's, which works in place on slices of buffers; all around it is done for a whole frame or
burst at once where that pays.
"""

from __future__ import annotations

import struct
from array import array
from collections import deque
from collections.abc import Callable, Sequence
from itertools import repeat
from operator import lt
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from .coalesce import Merger, Place, copy_payloads, write, write_one
from .contract import MAX_DATAGRAMS, TRAIN_BYTES, VNET_BYTES, Opened, ReadFrames, Receive, Sealed, Window
from .headers import CWR, packet_bytes
from .packet import Run, read_packet
from .split import Template, complete, lay_out, read_frame
from .window import is_fresh, mark, mark_run

if TYPE_CHECKING:
    from .columns import Columns
    from .lanes import Lanes

_TRANSPORT: Final = struct.Struct("<IIQ")
"""A transport message's header: type 4 and three zeros, receiver index, counter (WireGuard paper 5.4.6)."""
_TYPE: Final = 4
_HEADER_BYTES: Final = _TRANSPORT.size
_HEAD_BYTES: Final = 8
"""Type and receiver index: what all messages to one session begin with."""
_TAG_BYTES: Final = 16
_CHANNEL: Final = struct.Struct("!HH")
_NONCE: Final = struct.Struct("<4xQ")
_COUNTER: Final = struct.Struct("<Q")
_PADDING: Final = 16
_ZEROS: Final = bytes(_PADDING)
_STRIDE_MAX: Final = 65_535
_ENOUGH: Final = 8
"""From so many packets on, columns are worth it."""
_MALFORMED: Final = Sealed(0, 0, 0)

_REFUSED: Final = -1
"""In place of the size of a plaintext."""


def padded_bytes(size: int, mtu: int) -> int:
    """Return how long a packet of `size` bytes is when sealed (WireGuard paper 5.4.6)."""
    return max(size, min(-(-size // _PADDING) * _PADDING, mtu))


class PureSealing:
    """Seals under one key."""

    __slots__ = ("_columns", "_encrypt_into", "_remote_index")

    def __init__(self, key: bytes, remote_index: int, columns: Columns | None) -> None:
        self._encrypt_into = ChaCha20Poly1305(key).encrypt_into
        self._remote_index = remote_index
        self._columns = columns

    def seal(
        self, frame: memoryview, train: memoryview, *, counter: int, mtu: int, channel: int | None = None
    ) -> Sealed:
        """See `Sealing`."""
        cut = read_frame(frame)
        if cut is None:
            return _MALFORMED
        before = _HEADER_BYTES if channel is None else _CHANNEL.size + _HEADER_BYTES
        longest = padded_bytes(cut.longest, mtu)
        stride = before + longest + _TAG_BYTES
        if stride > _STRIDE_MAX:
            return _MALFORMED
        packet = frame[VNET_BYTES : VNET_BYTES + cut.size]
        first = 0
        if not cut.protocol:
            complete(packet, cut)
            train[before : before + cut.size] = packet
        else:
            template = Template(packet, cut)
            if self._columns is not None and cut.packets >= _ENOUGH and not template.flags & CWR:
                first = cut.packets - 1
                run = (before, first, stride, cut.longest)
                self._columns.lay_out(packet, template, cut, train, run)
                self._columns.wrap(train, run, self._head(channel, longest, counter), counter, longest - cut.longest)
                self._seal_run(train, run, longest, self._columns.nonces(counter, first))
            lay_out(packet, template, cut, train, start=before + first * stride, stride=stride, first=first)
        start, size, padded = before + first * stride, cut.longest, longest
        end = start
        for number in range(first, cut.packets):
            if number == cut.packets - 1:
                size, padded = cut.last, padded_bytes(cut.last, mtu)
            end = start + padded
            train[start - before : start] = self._head(channel, padded, counter + number)
            if padded > size:
                train[start + size : end] = _ZEROS[: padded - size]
            self._encrypt_into(_NONCE.pack(counter + number), train[start:end], None, train[start : end + _TAG_BYTES])
            start += stride
        return Sealed(cut.packets, stride, end + _TAG_BYTES)

    def seal_each(
        self,
        buffer: memoryview,
        spans: array[int],
        train: memoryview,
        *,
        counter: int,
        mtu: int,
        channel: int | None = None,
    ) -> list[Sealed]:
        """See `Sealing`."""
        sealed: list[Sealed] = []
        used = 0
        for at, size in zip(spans[::2], spans[1::2], strict=True):
            if sealed and len(train) - used < TRAIN_BYTES:
                break
            one = self.seal(buffer[at : at + size], train[used:], counter=counter, mtu=mtu, channel=channel)
            counter += one.datagrams
            used += one.total
            sealed.append(one)
        return sealed

    def _head(self, channel: int | None, padded: int, counter: int) -> bytes:
        head = _TRANSPORT.pack(_TYPE, self._remote_index, counter)
        return head if channel is None else _CHANNEL.pack(channel, _HEADER_BYTES + padded + _TAG_BYTES) + head

    def _seal_run(self, train: memoryview, run: Run, padded: int, nonces: list[memoryview]) -> None:
        start, count, stride, _ = run
        starts = range(start, start + count * stride, stride)
        plain = [train[at : at + padded] for at in starts]
        padded += _TAG_BYTES
        sealed = [train[at : at + padded] for at in starts]
        deque(map(self._encrypt_into, nonces, plain, repeat(None), sealed), maxlen=0)


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
        offsets, lengths = spans[0::2].tolist(), spans[1::2].tolist()
        counters = [_COUNTER.unpack_from(buffer, offset + 8)[0] for offset in offsets]
        replayed = over_limit = 0
        if self._in_order(counters, limit):
            sizes = self._open_run(buffer, offsets, lengths, counters)
        else:
            sizes, replayed, over_limit = self._open_each(buffer, offsets, lengths, counters, limit)
        refused = sizes.count(_REFUSED)
        if refused:
            offsets = [offset for offset, size in zip(offsets, sizes, strict=True) if size != _REFUSED]
            sizes = [size for size in sizes if size != _REFUSED]
        starts = [offset + _HEADER_BYTES for offset in offsets]
        frames, without = self._frames(buffer, starts, sizes, out) if coalesce else _alone(buffer, starts, sizes, out)
        octets = sum(sizes) + len(sizes) * (_HEADER_BYTES + _TAG_BYTES)
        keepalives = sizes.count(0)
        forged = refused - replayed - over_limit
        return Opened(frames, len(sizes), octets, keepalives, replayed, forged, without - keepalives, over_limit)

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

    def _in_order(self, counters: list[int], limit: int) -> bool:
        """Say whether each counter is above the one before, the window, and below the limit: nothing is a replay."""
        if not counters or counters[0] < self._window.state[0] or counters[-1] >= limit:
            return False
        return all(map(lt, counters, counters[1:]))

    def _open_run(self, buffer: memoryview, offsets: list[int], lengths: list[int], counters: list[int]) -> list[int]:
        """Open all; return the size of each plaintext."""
        sealed = [buffer[at + _HEADER_BYTES : at + length] for at, length in zip(offsets, lengths, strict=True)]
        plain = [
            buffer[at + _HEADER_BYTES : at + length - _TAG_BYTES] for at, length in zip(offsets, lengths, strict=True)
        ]
        count = len(counters)
        consecutive = counters[-1] - counters[0] == count - 1
        nonces: Sequence[bytes | memoryview]
        if consecutive and self._columns is not None and count >= _ENOUGH:
            nonces = self._columns.nonces(counters[0], count)
        else:
            nonces = [_NONCE.pack(counter) for counter in counters]
        sizes: deque[int] = deque()
        work = map(self._decrypt_into, nonces, sealed, repeat(None), plain)
        while len(sizes) < count:
            try:
                sizes.extend(work)  # keeps what it has got when one fails; the next call goes on after that one
            except InvalidTag:
                sizes.append(_REFUSED)
        if consecutive and _REFUSED not in sizes:
            mark_run(self._window.state, counters[0], count)
        else:
            for counter, size in zip(counters, sizes, strict=True):
                if size != _REFUSED:
                    mark(self._window.state, counter)
        return list(sizes)

    def _open_each(
        self, buffer: memoryview, offsets: list[int], lengths: list[int], counters: list[int], limit: int
    ) -> tuple[list[int], int, int]:
        """Open what may be opened, one after another; return as `_open_run`, how many replayed, and over the limit."""
        state = self._window.state
        sizes: list[int] = []
        replayed = over_limit = 0
        for offset, length, counter in zip(offsets, lengths, counters, strict=True):
            size = _REFUSED
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
            return self._decrypt_into(_NONCE.pack(counter), buffer[start:end], None, buffer[start : end - _TAG_BYTES])
        except InvalidTag:
            return _REFUSED

    def _frames(
        self, buffer: memoryview, starts: list[int], sizes: list[int], out: memoryview
    ) -> tuple[list[Place], int]:
        """Write frames of what was opened; return where they are, and how many times there was no packet."""
        merger = Merger(buffer)
        columns = self._columns
        without = number = mixed_until = 0
        while number < len(starts):
            start, there = starts[number], sizes[number]
            size = packet_bytes(buffer, start, start + there)
            if not size:
                without += 1
                number += 1
                continue
            if columns is not None and number >= mixed_until and number + _ENOUGH <= len(starts):
                count = _evenly_spaced(buffer, starts, sizes, number)
                run = (start, count, starts[number + 1] - start, size)
                chunks = columns.read_run(buffer, run) if count else ()
                if chunks:
                    for chunk in chunks:
                        merger.add(chunk)
                        number += chunk.run[1]
                    continue
                mixed_until = number + _ENOUGH
            merger.add_one(read_packet(buffer, start, size), start, size)
            number += 1
        copy = copy_payloads if columns is None else columns.copy_payloads
        return write(buffer, merger.frames, out, copy), without


def _evenly_spaced(buffer: memoryview, starts: list[int], sizes: list[int], number: int) -> int:
    """Return how many plaintexts from this one on have one size and one distance, and may be of one flow; or 0."""
    start, size = starts[number], sizes[number]
    stride = starts[number + 1] - start
    eighth = starts[number + _ENOUGH - 1]
    if stride < size or eighth - start != stride * (_ENOUGH - 1):
        return 0
    if buffer[start + 12 : start + 24] != buffer[eighth + 12 : eighth + 24]:
        return 0
    count = len(starts) - number
    ideal = list(range(start, start + count * stride, stride))
    for whole in (count, count - 1):  # as a train of datagrams comes, the last one maybe shorter
        end = number + whole
        if sizes[number:end].count(size) == whole and starts[number:end] == ideal[:whole]:
            return whole
    whole = 1
    while sizes[number + whole] == size and starts[number + whole] == ideal[whole]:
        whole += 1
    return whole if whole >= _ENOUGH else 0


def _alone(buffer: memoryview, starts: list[int], sizes: list[int], out: memoryview) -> tuple[list[Place], int]:
    """Write each packet as a frame of its own; return as `_frames`."""
    places: list[Place] = []
    begin = without = 0
    for start, there in zip(starts, sizes, strict=True):
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

    @staticmethod
    def index_of(buffer: memoryview, spans: array[int], /) -> int | None:
        """See `Kernel`."""
        if not spans or len(spans) > 2 * MAX_DATAGRAMS or min(spans[1::2]) < _HEADER_BYTES + _TAG_BYTES:
            return None
        head = bytes(buffer[spans[0] : spans[0] + _HEAD_BYTES])
        heads = b"".join([buffer[at : at + _HEAD_BYTES] for at in spans[::2]])
        if head[:4] != _TYPE.to_bytes(4, "little") or heads != head * (len(spans) // 2):
            return None
        return int.from_bytes(head[4:], "little")

    def sealing(self, key: bytes, remote_index: int) -> PureSealing:
        """See `Kernel`."""
        self.prepare()
        return PureSealing(key, remote_index, self._columns)

    def opening(self, key: bytes, window: Window) -> PureOpening:
        """See `Kernel`."""
        self.prepare()
        return PureOpening(key, window, self._columns)


KERNEL: Final = PureKernel()
