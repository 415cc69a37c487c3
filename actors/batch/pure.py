"""The kernel in Python: what every other kernel is held against, and what runs where there is no other.

The cipher is cryptography's, which works in place on slices of buffers; all around it is done for a whole frame or
burst at once where that pays.
"""

from __future__ import annotations

import contextlib
import struct
from array import array
from collections import deque
from itertools import repeat
from operator import lt
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from .coalesce import Chunk, Merger, Place, copy_payloads, read_packet, write, write_one
from .contract import VNET_BYTES, Opened, Sealed, Window
from .headers import CWR, packet_bytes
from .split import Cut, Template, complete, lay_out, read_frame
from .window import is_fresh, mark, mark_run

if TYPE_CHECKING:
    from .columns import Columns

_TRANSPORT: Final = struct.Struct("<IIQ")
"""A transport message's header: type 4 and three zeros, receiver index, counter (WireGuard paper 5.4.6)."""
_TYPE: Final = 4
_HEADER_BYTES: Final = _TRANSPORT.size
_TAG_BYTES: Final = 16
_CHANNEL: Final = struct.Struct("!HH")
_NONCE: Final = struct.Struct("<4xQ")
_COUNTER: Final = struct.Struct("<Q")
_PADDING: Final = 16
_ZEROS: Final = bytes(_PADDING)
_STRIDE_MAX: Final = 65_535
_ENOUGH: Final = 5
"""From so many packets on, columns are worth it."""
_MALFORMED: Final = Sealed(0, 0, 0)

_NOT_OPENED: Final = -1


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
                head = self._head(channel, longest, 0)
                self._columns.lay_out_all_but_last(packet, cut, template, train, stride, before=head, counter=counter)
                self._seal_all_but_last(train, cut, before, longest, stride, counter)
            lay_out(packet, cut, template, train, before + first * stride, stride, first)
        start = before + first * stride
        size, padded = cut.longest, longest
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

    def _head(self, channel: int | None, padded: int, counter: int) -> bytes:
        head = _TRANSPORT.pack(_TYPE, self._remote_index, counter)
        return head if channel is None else _CHANNEL.pack(channel, _HEADER_BYTES + padded + _TAG_BYTES) + head

    def _seal_all_but_last(
        self, train: memoryview, cut: Cut, start: int, padded: int, stride: int, counter: int
    ) -> None:
        assert self._columns is not None
        rows = cut.packets - 1
        if padded > cut.longest:
            self._columns.fill_zeros(train, start + cut.longest, rows, stride, padded - cut.longest)
        starts = range(start, start + rows * stride, stride)
        plain = [train[at : at + padded] for at in starts]
        padded += _TAG_BYTES
        sealed = [train[at : at + padded] for at in starts]
        nonces = self._columns.nonces(counter, rows)
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
        offsets, lengths = spans[0::2].tolist(), spans[1::2].tolist()
        counters = [_COUNTER.unpack_from(buffer, offset + 8)[0] for offset in offsets]
        replayed = over_limit = 0
        if self._in_order(counters, limit):
            opened = self._open_run(buffer, offsets, lengths, counters)
        else:
            opened, replayed, over_limit = self._open_each(buffer, offsets, lengths, counters, limit)
        forged = opened.count(_NOT_OPENED) - replayed - over_limit
        if _NOT_OPENED in opened:
            offsets = [offset for offset, size in zip(offsets, opened, strict=True) if size != _NOT_OPENED]
            opened = [size for size in opened if size != _NOT_OPENED]
        octets = sum(opened) + len(opened) * (_HEADER_BYTES + _TAG_BYTES)
        starts = [offset + _HEADER_BYTES for offset in offsets]
        frames, malformed = self._frames(buffer, starts, opened, out, coalesce=coalesce)
        keepalives = opened.count(0)
        return Opened(frames, len(opened), octets, keepalives, replayed, forged, malformed - keepalives, over_limit)

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
        if consecutive and self._columns is not None and count >= _ENOUGH:
            nonces = self._columns.nonces(counters[0], count)
        else:
            nonces = list(map(_NONCE.pack, counters))
        opened: deque[int] = deque()
        work = map(self._decrypt_into, nonces, sealed, repeat(None), plain)
        while len(opened) < count:
            try:
                opened.extend(work)  # keeps what it has got when one fails; the next call goes on after that one
            except InvalidTag:
                opened.append(_NOT_OPENED)
        if consecutive and _NOT_OPENED not in opened:
            mark_run(self._window.state, counters[0], count)
        else:
            for counter, size in zip(counters, opened, strict=True):
                if size != _NOT_OPENED:
                    mark(self._window.state, counter)
        return list(opened)

    def _open_each(
        self, buffer: memoryview, offsets: list[int], lengths: list[int], counters: list[int], limit: int
    ) -> tuple[list[int], int, int]:
        """Open what may be opened, one after another; return also how many were replayed, and how many over the limit."""
        state = self._window.state
        opened: list[int] = []
        replayed = over_limit = 0
        for offset, length, counter in zip(offsets, lengths, counters, strict=True):
            size = _NOT_OPENED
            if counter >= limit:
                over_limit += 1
            elif not is_fresh(state, counter):
                replayed += 1
            else:
                start, end = offset + _HEADER_BYTES, offset + length
                with contextlib.suppress(InvalidTag):
                    size = self._decrypt_into(
                        _NONCE.pack(counter), buffer[start:end], None, buffer[start : end - _TAG_BYTES]
                    )
                    mark(state, counter)
            opened.append(size)
        return opened, replayed, over_limit

    def _frames(
        self, buffer: memoryview, starts: list[int], lengths: list[int], out: memoryview, *, coalesce: bool
    ) -> tuple[list[Place], int]:
        """Write frames of what was opened; return where they are, and how many times there was no packet."""
        if not coalesce or len(starts) == 1:
            return _alone(buffer, starts, lengths, out)
        merger = Merger(buffer)
        columns = self._columns
        strangers = number = 0
        mixed_until = 0
        while number < len(starts):
            start, length = starts[number], lengths[number]
            size = packet_bytes(buffer, start, start + length)
            if not size:
                strangers += 1
                number += 1
                continue
            if columns is not None and number >= mixed_until and number + _ENOUGH <= len(starts):
                rows = _run(buffer, starts, lengths, number)
                chunks = columns.read_run(buffer, start, rows, starts[number + 1] - start, size) if rows else []
                for chunk in chunks:
                    merger.add(chunk)
                    number += chunk.count
                if chunks:
                    continue
                mixed_until = number + _ENOUGH
            packet = read_packet(buffer, start, size)
            merger.add(Chunk(packet, start, 1, 0, size, packet.pushes, None))
            number += 1
        copy = copy_payloads if columns is None else columns.copy_payloads
        return write(buffer, merger.frames, out, copy), strangers


def _run(buffer: memoryview, starts: list[int], lengths: list[int], number: int) -> int:
    """Return how many datagrams from this one on have one length, evenly spaced, or 0 if it is not worth it."""
    start, length = starts[number], lengths[number]
    stride = starts[number + 1] - start
    fifth = starts[number + _ENOUGH - 1]
    if (
        stride < length
        or fifth - start != stride * (_ENOUGH - 1)
        or buffer[start + 12 : start + 24] != buffer[fifth + 12 : fifth + 24]
    ):
        return 0
    for end in (len(starts), len(starts) - 1):
        if lengths[number:end].count(length) == end - number and starts[number:end] == list(
            range(start, start + (end - number) * stride, stride)
        ):
            return end - number
    rows = 0
    while lengths[number + rows] == length and starts[number + rows] == start + rows * stride:
        rows += 1
    return rows if rows >= _ENOUGH else 0


def _alone(buffer: memoryview, starts: list[int], lengths: list[int], out: memoryview) -> tuple[list[Place], int]:
    """Write each packet as a frame of its own."""
    places: list[Place] = []
    begin = strangers = 0
    for start, length in zip(starts, lengths, strict=True):
        size = packet_bytes(buffer, start, start + length)
        if size:
            end = begin + VNET_BYTES + size
            write_one(buffer, start, size, out, begin)
            places.append((begin, end, 1))
            begin = end
        else:
            strangers += 1
    return places, strangers


class PureKernel:
    """Makes them. Numpy is looked for when the first is made."""

    name = "pure"

    def __init__(self, *, with_numpy: bool = True) -> None:
        self._with_numpy = with_numpy
        self._columns: Columns | None = None

    def prepare(self) -> None:
        """Import numpy, which takes a fifth of a second, if it is there; harmless when done."""
        if self._with_numpy and self._columns is None:
            try:
                from .columns import Columns
            except ImportError:
                self._with_numpy = False
            else:
                self._columns = Columns()

    def sealing(self, key: bytes, remote_index: int) -> PureSealing:
        """See `Kernel`."""
        self.prepare()
        return PureSealing(key, remote_index, self._columns)

    def opening(self, key: bytes, window: Window) -> PureOpening:
        """See `Kernel`."""
        self.prepare()
        return PureOpening(key, window, self._columns)


KERNEL: Final = PureKernel()
