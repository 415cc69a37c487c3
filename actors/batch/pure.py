"""The kernel in Python: what every other kernel is held against, and what runs where there is no other.

The cipher is cryptography's, which works in place on slices of buffers; all around it is done for a whole frame or
burst at once where that pays.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator
from operator import lt
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from .coalesce import coalesce as merge
from .coalesce import write_one
from .contract import VNET_BYTES, Opened, Sealed, Window
from .headers import packet_bytes
from .split import complete, lay_out, read_frame
from .window import is_fresh, mark, mark_run

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
_MALFORMED: Final = Sealed(0, 0, 0)

_OPENED: Final = 0
_FORGED: Final = 1
_REPLAYED: Final = 2
_OVER_LIMIT: Final = 3


def padded_bytes(size: int, mtu: int) -> int:
    """Return how long a packet of `size` bytes is when sealed (WireGuard paper 5.4.6)."""
    return max(size, min(-(-size // _PADDING) * _PADDING, mtu))


class PureSealing:
    """Seals under one key."""

    __slots__ = ("_encrypt_into", "_remote_index")

    def __init__(self, key: bytes, remote_index: int) -> None:
        self._encrypt_into = ChaCha20Poly1305(key).encrypt_into
        self._remote_index = remote_index

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
        if cut.protocol:
            lay_out(packet, cut, train, before, stride)
        else:
            complete(packet, cut)
            train[before : before + cut.size] = packet
        start = before
        size, padded = cut.longest, longest
        for number in range(cut.packets):
            if number == cut.packets - 1:
                size, padded = cut.last, padded_bytes(cut.last, mtu)
            end = start + padded
            self._write_headers(train, start, counter + number, channel, _HEADER_BYTES + padded + _TAG_BYTES)
            train[start + size : end] = _ZEROS[: padded - size]
            nonce = _NONCE.pack(counter + number)
            self._encrypt_into(nonce, train[start:end], None, train[start : end + _TAG_BYTES])
            start += stride
        return Sealed(cut.packets, stride, end + _TAG_BYTES)

    def _write_headers(self, train: memoryview, start: int, counter: int, channel: int | None, length: int) -> None:
        _TRANSPORT.pack_into(train, start - _HEADER_BYTES, _TYPE, self._remote_index, counter)
        if channel is not None:
            _CHANNEL.pack_into(train, start - _HEADER_BYTES - _CHANNEL.size, channel, length)


class PureOpening:
    """Opens under one key, each counter once."""

    __slots__ = ("_decrypt_into", "_window")

    def __init__(self, key: bytes, window: Window) -> None:
        self._decrypt_into = ChaCha20Poly1305(key).decrypt_into
        self._window = window

    def open(
        self, buffer: memoryview, spans: array[int], out: memoryview, *, limit: int, coalesce: bool = True
    ) -> Opened:
        """See `Opening`."""
        offsets, lengths = spans[0::2], spans[1::2]
        counters = [_COUNTER.unpack_from(buffer, offset + 8)[0] for offset in offsets]
        if self._in_order(counters, limit):
            opened = self._open_run(buffer, offsets, lengths, counters)
        else:
            opened = self._open_each(buffer, offsets, lengths, counters, limit)
        packets: list[tuple[int, int]] = []
        octets = keepalives = malformed = 0
        for offset, length, verdict in zip(offsets, lengths, opened, strict=True):
            if verdict != _OPENED:
                continue
            octets += length
            start = offset + _HEADER_BYTES
            size = packet_bytes(buffer, start, offset + length - _TAG_BYTES)
            if size:
                packets.append((start, size))
            elif length == _HEADER_BYTES + _TAG_BYTES:
                keepalives += 1
            else:
                malformed += 1
        frames = merge(buffer, packets, out) if coalesce and len(packets) > 1 else list(_alone(buffer, packets, out))
        datagrams, replayed, forged, over_limit = map(opened.count, (_OPENED, _REPLAYED, _FORGED, _OVER_LIMIT))
        return Opened(frames, datagrams, octets, keepalives, replayed, forged, malformed, over_limit)

    def _in_order(self, counters: list[int], limit: int) -> bool:
        """Say whether each counter is above the one before, the window, and below the limit: nothing is a replay."""
        if not counters or counters[0] < self._window.state[0] or counters[-1] >= limit:
            return False
        return all(map(lt, counters, counters[1:]))

    def _open_run(self, buffer: memoryview, offsets: array[int], lengths: array[int], counters: list[int]) -> list[int]:
        opened = [self._open_one(buffer, offset, length) for offset, length in zip(offsets, lengths, strict=True)]
        if _FORGED not in opened and counters[-1] - counters[0] == len(counters) - 1:
            mark_run(self._window.state, counters[0], len(counters))
        else:
            for counter, verdict in zip(counters, opened, strict=True):
                if verdict == _OPENED:
                    mark(self._window.state, counter)
        return opened

    def _open_each(
        self, buffer: memoryview, offsets: array[int], lengths: array[int], counters: list[int], limit: int
    ) -> list[int]:
        state = self._window.state
        opened: list[int] = []
        for offset, length, counter in zip(offsets, lengths, counters, strict=True):
            if counter >= limit:
                opened.append(_OVER_LIMIT)
            elif not is_fresh(state, counter):
                opened.append(_REPLAYED)
            else:
                verdict = self._open_one(buffer, offset, length)
                if verdict == _OPENED:
                    mark(state, counter)
                opened.append(verdict)
        return opened

    def _open_one(self, buffer: memoryview, offset: int, length: int) -> int:
        start = offset + _HEADER_BYTES
        end = offset + length
        nonce = bytes(4) + buffer[offset + 8 : start]
        try:
            self._decrypt_into(nonce, buffer[start:end], None, buffer[start : end - _TAG_BYTES])
        except InvalidTag:
            return _FORGED
        return _OPENED


def _alone(buffer: memoryview, packets: list[tuple[int, int]], out: memoryview) -> Iterator[tuple[int, int, int]]:
    begin = 0
    for start, size in packets:
        end = begin + VNET_BYTES + size
        write_one(buffer, start, size, out, begin)
        yield begin, end, 1
        begin = end


class PureKernel:
    """Makes them."""

    name = "pure"

    def __init__(self, *, with_numpy: bool = True) -> None:
        self._with_numpy = with_numpy

    def sealing(self, key: bytes, remote_index: int) -> PureSealing:
        """See `Kernel`."""
        return PureSealing(key, remote_index)

    def opening(self, key: bytes, window: Window) -> PureOpening:
        """See `Kernel`."""
        return PureOpening(key, window)


KERNEL: Final = PureKernel()
