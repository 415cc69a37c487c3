"""The pure kernel's inner loops with numpy, where there is numpy: one operation for a column of all packets.

The packets of a train lie `stride` bytes apart, so a header field of all of them is a column of a matrix that begins at
that field, and a checksum of all of them is a sum along its rows. The sum is of 32-bit little-endian words: what a sum
in one's complement is does not depend on the byte order but for the order of its own bytes (RFC 1071 section 2), and
modulo 65,535 two words may be taken at once.

An operation on a column costs a microsecond before it does anything. For a few packets a loop is faster.
"""

from __future__ import annotations

from array import array
from ctypes import addressof, c_char
from functools import cache
from itertools import pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from .checksum import MODULUS
from .coalesce import Chunk
from .contract import MAX_DATAGRAMS
from .headers import CHECKSUM_AT, PSH, TCP, UDP, packet_bytes
from .packet import Packet, Run, addresses_at, read_packet, split_mask
from .split import Part

Column = npt.NDArray[Any]

_NUMBERS: Final = np.arange(MAX_DATAGRAMS, dtype=np.int64)
_COUNTERS: Final = np.arange(MAX_DATAGRAMS, dtype=np.uint64)
_U32_MAX: Final = np.uint64(0xFFFFFFFF)
_U16_MAX: Final = np.uint32(0xFFFF)
_PSH: Final = np.uint32(PSH << 8)
"""In the word with TCP's header length and flags."""
_RUNS_KEPT: Final = 8
"""Of so many runs are slices kept: some ten kilobytes each, 400 at most."""


def _column(data: memoryview, run: Run, at: int, kind: str) -> Column:
    """Return the field at this offset of each packet."""
    start, count, stride, _ = run
    return np.ndarray((count,), kind, data, start + at, (stride,))


def _block(data: memoryview, run: Run, at: int, width: int) -> Column:
    """Return so many bytes of each packet, from this offset on."""
    start, count, stride, _ = run
    return np.ndarray((count, width), np.uint8, data, start + at, (stride, 1))


def _words(data: memoryview, run: Run, begin: int, end: int) -> Column:
    """Return each packet's whole words between these offsets."""
    start, count, stride, _ = run
    return np.ndarray((count, (end - begin) >> 2), "<u4", data, start + begin, (stride, 4))


def _sums(data: memoryview, run: Run, begin: int, fixed: Any) -> Column:
    """Return the sum of each packet's bytes from this offset on, modulo 65,535, with a swapped sum added, or those of a
    column.
    """
    size = run[3]
    sums: Column = np.add.reduce(_words(data, run, begin, size), axis=1, dtype=np.int64)
    rest = size - begin & 3
    if rest & 2:
        sums += _column(data, run, size - rest, "<u2")
    if rest & 1:
        sums += _column(data, run, size - 1, "u1")
    sums += fixed
    sums %= MODULUS
    return sums


def _swapped(total: int) -> int:
    """Return a sum of words in network order as one of little-endian words."""
    total %= MODULUS
    return (total & 0xFF) << 8 | total >> 8


class Columns:
    """What is done by columns."""

    __slots__ = ("_counters", "_nonces", "_slices")

    def __init__(self) -> None:
        memory = memoryview(bytearray(12 * MAX_DATAGRAMS))
        self._counters = _column(memory, (4, MAX_DATAGRAMS, 12, 8), 0, "<u8")
        self._nonces = [memory[at : at + 12] for at in range(0, len(memory), 12)]
        self._slices: dict[tuple[int, int, int], tuple[list[memoryview], list[memoryview]]] = {}

    def nonces(self, counters: Column) -> list[memoryview]:
        """Return the nonces for these counters (WireGuard paper 5.4.6); they last until the next call."""
        self._counters[: len(counters)] = counters
        return self._nonces[: len(counters)]

    def slices(self, data: memoryview, run: Run, tail: int) -> tuple[list[memoryview], list[memoryview]]:
        """Return the bytes of a run one by one, and the same with so many bytes after each; maybe of more than these.

        To make two slices costs a fifth of what the cipher does. What is read is always in the same buffer, mostly from
        its beginning on and of one length, and so is what is sealed: what was made is kept, for a few runs, by the
        address.
        """
        start, count, stride, size = run
        key = addressof(c_char.from_buffer(data, start)), stride, size
        kept: tuple[list[memoryview], list[memoryview]] | None = self._slices.pop(key, None)
        if kept is None:
            while len(self._slices) >= _RUNS_KEPT:
                del self._slices[next(iter(self._slices))]
            kept = [], []
        self._slices[key] = kept  # the last one to go
        made = len(kept[0])
        if made < count:
            starts = range(start + made * stride, start + count * stride, stride)
            kept[0].extend([data[at : at + size] for at in starts])
            size += tail
            kept[1].extend([data[at : at + size] for at in starts])
        return kept

    # Sealing

    @staticmethod
    def counters(first: int, count: int) -> Column:
        """Return consecutive counters."""
        return _COUNTERS[:count] + np.uint64(first)

    @staticmethod
    def lay_out(parts: list[Part], train: memoryview, run: Run, *, head: bytes, counters: Column) -> None:
        """Write the packets that frames are cut into to a run in the train, each behind a head which ends with its
        counter; of the last frame a shorter packet at its end is left out. Their headers are of one shape, and none has
        a flag of its own unless it is the last of a frame.
        """
        start, count, stride, size = run
        _, template, cut = parts[0]
        protocol, transport, header_end = cut.protocol, cut.transport, cut.header_end
        width = size - header_end
        heads = _block(train, (start - len(head), count, stride, 0), 0, len(head) + header_end)
        payloads = _block(train, run, header_end, width)
        first = 0
        for packet, one, its in parts:
            after = min(first + its.packets, count)
            heads[first:after] = np.frombuffer(head + one.header, np.uint8)
            payloads[first:after] = _block(packet, (header_end, after - first, width, width), 0, width)
            if one.flags and not its.has_rest:
                train[start + (after - 1) * stride + transport + 13] |= one.flags
            first = after
        _column(train, run, -8, "<u8")[:] = counters
        identification, ip_sum, sequence, fixed = _bases(parts, count, protocol + size - transport, width)
        if template.is_v4:
            ids = _NUMBERS[:count] + identification
            ids &= 0xFFFF
            _column(train, run, 4, ">u2")[:] = ids
            ids += ip_sum
            _column(train, run, 10, ">u2")[:] = -ids % MODULUS
        if protocol == TCP:
            sequences = _NUMBERS[:count] * width
            sequences += sequence
            _column(train, run, transport + 4, ">u4")[:] = sequences
        sums = _sums(train, run, transport, fixed)
        _column(train, run, transport + CHECKSUM_AT[protocol], "<u2")[:] = MODULUS - sums

    @staticmethod
    def pad(train: memoryview, run: Run, padding: int) -> None:
        """Write zeros after each packet of a run."""
        _block(train, run, run[3], padding)[:] = 0

    # Opening

    @staticmethod
    def begin_alike(buffer: memoryview, spans: array[int], shortest: int) -> bool:
        """Say whether all these datagrams have the same first eight bytes, and none is shorter than so many."""
        places = np.frombuffer(spans, "<u8")
        run = _single_run(places, spans)
        if run is not None:
            return run[3] >= shortest and _is_constant(_column(buffer, run, 0, "<u8"))
        return min(spans[1::2]) >= shortest and _is_constant(_gathered(buffer, spans, 0))

    def in_order(self, buffer: memoryview, spans: array[int], runs: list[Run]) -> tuple[Column, bool] | None:
        """Return the counters of these datagrams, which are in these runs, and whether they are in a row; None if any
        is not above the one before.
        """
        counters = _column(buffer, runs[0], 8, "<u8") if len(runs) == 1 else _gathered(buffer, spans, 8)
        first, last = int(counters[0]), int(counters[-1])
        if last - first == len(counters) - 1 and counters.tobytes() == self.counters(first, len(counters)).tobytes():
            return counters, True
        return (counters, False) if (counters[1:] > counters[:-1]).all() else None

    @staticmethod
    def runs_of(spans: array[int]) -> list[Run]:
        """Return spans as runs, however short."""
        places = np.frombuffer(spans, "<u8")
        run = _single_run(places, spans)
        if run is not None:
            return [run]
        offsets = (places & _U32_MAX).astype(np.int64)
        lengths = (places >> np.uint64(32)).astype(np.int64)
        gaps = offsets[1:] - offsets[:-1] - lengths[:-1]
        gap = int(gaps[0])
        if gap < 0:  # nobody reads datagrams so that one lies in another
            return [(at, 1, size, size) for at, size in zip(spans[::2], spans[1::2], strict=True)]
        # Where a run ends: at another size, or a place that is not as far behind as the first one's neighbour was.
        ends = (gaps != gaps[0]) | (lengths[1:] != lengths[:-1])
        edges = [0, *(np.flatnonzero(ends) + 1).tolist(), len(places)]
        return [
            (spans[2 * first], after - first, spans[2 * first + 1] + gap, spans[2 * first + 1])
            for first, after in pairwise(edges)
        ]

    @staticmethod
    def copy_payloads(data: memoryview, run: Run, header_end: int, out: memoryview, at: int) -> None:
        """Copy what comes after the headers of each packet, to lie one after another from `at` on."""
        _, count, _, size = run
        width = size - header_end
        _block(out, (at, count, width, width), 0, width)[:] = _block(data, run, header_end, width)

    @staticmethod
    def read_run(data: memoryview, run: Run) -> list[Chunk]:
        """Return chunks of the packets that a run begins with, as far as they have headers of one shape.

        Only the first has been seen to be a packet.
        """
        start, count, stride, size = run
        packet = read_packet(data, start, size)
        if not packet.signature:
            return []
        protocol, transport, header_end = packet.protocol, packet.transport, packet.header_end
        words = np.ascontiguousarray(_words(data, run, 0, header_end).T)  # the long way of a matrix is the fast one
        differ = words[:, 1:] ^ words[:, :-1]
        differ &= _mask(protocol, transport, header_end)
        begins = np.bitwise_or.reduce(differ, axis=0)
        pushes = b""
        if protocol == TCP:
            sequences = words[transport + 4 >> 2].view(">u4")
            begins |= sequences[1:] - sequences[:-1] - np.uint32(size - header_end)
            flags = words[transport + 12 >> 2] & _PSH
            begins |= flags[:-1]
            pushes = (flags != 0).tobytes()
        unsound = _judge(data, run, packet, words)
        is_unsound = bool(unsound.any())
        if is_unsound:
            begins |= unsound[1:] | unsound[:-1]
        edges = [*(begins.nonzero()[0] + 1).tolist(), count]
        chunks: list[Chunk] = []
        first = 0
        for after in edges:
            at = start + first * stride
            if first:
                if packet_bytes(data, at, at + size) != size:
                    break
                packet = read_packet(data, at, size)
                if not packet.signature or packet[2:5] != (protocol, transport, header_end):
                    break
            part = (at, after - first, stride, size)
            sound = not (is_unsound and unsound[first])
            chunks.append(Chunk(packet, part, protocol == TCP and pushes[after - 1] != 0, sound))
            first = after
        return chunks


def _bases(parts: list[Part], count: int, around: int, width: int) -> tuple[Any, Any, Any, Any]:
    """Return what the ids of packets are counted from, the sum over their IPv4 headers without that, what their
    sequence numbers are counted from, in steps of `width`, and a swapped sum over their pseudo-headers, to which
    `around` belongs: one for all, if the frames go on from one another, else a column of each.
    """
    bases: list[tuple[int, int, int, int]] = []
    first = 0
    for _, template, cut in parts:
        header, at = template.header, cut.transport + 4
        identification = (header[4] << 8 | header[5]) - first & 0xFFFF if template.is_v4 else 0
        sequence = int.from_bytes(header[at : at + 4], "big") - first * width if cut.protocol == TCP else 0
        fixed = _swapped(template.addresses_sum + around)
        bases.append((identification, template.ip_sum, sequence & 0xFFFFFFFF, fixed))
        first += cut.packets
    if bases.count(bases[0]) == len(bases):
        return bases[0]
    counts = [cut.packets for _, _, cut in parts]
    counts[-1] -= first - count
    each = np.array(bases, np.int64).repeat(counts, axis=0)
    return each[:, 0], each[:, 1], each[:, 2], each[:, 3]


def _single_run(places: Column, spans: array[int]) -> Run | None:
    """Return spans as the one run that they are; None: they are not. `places` has an offset and, above it, a length."""
    steps = places[1:] - places[:-1]
    if _is_constant(steps) and 0 < steps[0] <= _U32_MAX:
        return spans[0], len(places), int(steps[0]), spans[1]
    return None


def _gathered(buffer: memoryview, spans: array[int], at: int) -> Column:
    """Return eight bytes of each datagram."""
    offsets = np.frombuffer(spans, np.uint32)[::2]
    gathered: Column = np.ndarray((len(buffer) - 7 - at,), "<u8", buffer, at, (1,))[offsets]
    return gathered


def _is_constant(column: Column) -> bool:
    """Say whether all are the same. Bytes are compared sooner than numbers."""
    return column.tobytes() == column[:1].tobytes() * len(column)


def _judge(data: memoryview, run: Run, packet: Packet, words: Column) -> Column:
    """Say of each packet whether a checksum is wrong; `words` are the headers', a row for each."""
    size, transport = run[3], packet.transport
    sums = _sums(data, run, addresses_at(transport), _swapped(packet.protocol + size - transport))
    if transport == 20:
        header_sums = np.add.reduce(words[:5], axis=0, dtype=np.int64)
        header_sums %= MODULUS
        sums |= header_sums
    unsound: Column = sums != 0
    if packet.protocol == UDP:
        unsound |= words[transport + 4 >> 2] <= _U16_MAX  # there is no checksum in its upper half
    return unsound


@cache
def _mask(protocol: int, transport: int, header_end: int) -> Column:
    """Return the words of `split_mask`, lengths included, one below the other."""
    mask = split_mask(protocol, transport, header_end, with_length=True)
    return np.frombuffer(mask.to_bytes(header_end, "big"), "<u4")[:, np.newaxis]
