"""The pure kernel's inner loops with numpy, where there is numpy: one operation for a column of all packets.

The packets of a train lie `stride` bytes apart, so a header field of all of them is a column of a matrix that begins at
that field, and a checksum of all of them is a sum along its rows. The sum is of 32-bit little-endian words: what a sum
in one's complement is does not depend on the byte order but for the order of its own bytes (RFC 1071 section 2), and
modulo 65,535 two words may be taken at once.

An operation on a column costs a microsecond before it does anything. For a few packets a loop is faster.
"""

from __future__ import annotations

from array import array
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
from .split import Cut, Template

Column = npt.NDArray[Any]

_NUMBERS: Final = np.arange(MAX_DATAGRAMS, dtype=np.int64)
_COUNTERS: Final = np.arange(MAX_DATAGRAMS, dtype=np.uint64)
_U32_MAX: Final = np.uint64(0xFFFFFFFF)
_RUNS_KEPT: Final = 8
"""Of so many runs are slices kept: some ten kilobytes each."""


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


def _sums(data: memoryview, run: Run, begin: int, fixed: int) -> Column:
    """Return the sum of each packet's bytes from this offset on, modulo 65,535, with a fixed sum added."""
    size = run[3]
    sums: Column = np.add.reduce(_words(data, run, begin, size), axis=1, dtype=np.int64)
    rest = size - begin & 3
    if rest & 2:
        sums += _column(data, run, size - rest, "<u2")
    if rest & 1:
        sums += _column(data, run, size - 1, "u1")
    sums += _swapped(fixed)
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
        its beginning on and of one length: what was made is kept, for a few runs, by the address. A train to be sealed
        begins in too many places for that: the memory for it would grow for a while.
        """
        start, count, stride, size = run
        there: tuple[int, bool] = np.ndarray((1,), np.uint8, data, start).__array_interface__["data"]
        key = there[0], stride, size
        kept = self._slices.get(key)
        if kept is None:
            while len(self._slices) >= _RUNS_KEPT:
                del self._slices[next(iter(self._slices))]
            kept = self._slices[key] = [], []
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
    def lay_out(
        packet: memoryview, template: Template, cut: Cut, train: memoryview, run: Run, *, head: bytes, counters: Column
    ) -> None:
        """Write the first packets that a frame is cut into to a run in the train, each behind a head which ends with
        its counter. None may have a flag of its own, unless it is the last of the frame.
        """
        start, count, stride, size = run
        _, packets, _, _, protocol, transport, header_end, gso_size = cut
        header = template.header
        _block(train, (start - len(head), count, stride, size), 0, len(head) + header_end)[:] = np.frombuffer(
            head + header, np.uint8
        )
        _column(train, run, -8, "<u8")[:] = counters
        payloads = (header_end, count, gso_size, gso_size)
        _block(train, run, header_end, gso_size)[:] = _block(packet, payloads, 0, gso_size)
        if template.is_v4:
            ids = _NUMBERS[:count] + (header[4] << 8 | header[5])
            ids &= 0xFFFF
            _column(train, run, 4, ">u2")[:] = ids
            ids += template.ip_sum
            _column(train, run, 10, ">u2")[:] = -ids % MODULUS
        if protocol == TCP:
            sequences = _NUMBERS[:count] * gso_size
            sequences += int.from_bytes(header[transport + 4 : transport + 8], "big")
            _column(train, run, transport + 4, ">u4")[:] = sequences
            if count == packets:
                train[start + (count - 1) * stride + transport + 13] |= template.flags
        sums = _sums(train, run, transport, template.addresses_sum + protocol + size - transport)
        _column(train, run, transport + CHECKSUM_AT[protocol], "<u2")[:] = MODULUS - sums

    @staticmethod
    def pad(train: memoryview, run: Run, padding: int) -> None:
        """Write zeros after each packet of a run."""
        _block(train, run, run[3], padding)[:] = 0

    # Opening

    @staticmethod
    def begin_alike(buffer: memoryview, spans: array[int]) -> bool:
        """Say whether all these datagrams have the same first eight bytes."""
        return _is_constant(_gathered(buffer, spans, 0))

    def in_order(self, buffer: memoryview, spans: array[int]) -> Column | None:
        """Return the counters of these datagrams, if each is above the one before."""
        counters = _gathered(buffer, spans, 8)
        consecutive = self.counters(int(counters[0]), len(counters))
        in_order = counters.tobytes() == consecutive.tobytes() or (counters[1:] > counters[:-1]).all()
        return counters if in_order else None

    @staticmethod
    def runs_of(spans: array[int]) -> list[Run]:
        """Return spans as runs, however short."""
        places = np.frombuffer(spans, "<u8")  # an offset and, above it, a length
        steps = places[1:] - places[:-1]
        if _is_constant(steps) and 0 < steps[0] <= _U32_MAX:
            return [(spans[0], len(places), int(steps[0]), spans[1])]
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
        words = _words(data, run, 0, header_end)
        differ = words[1:] ^ words[:-1]
        differ &= _mask(protocol, transport, header_end)
        begins = differ.any(axis=1)
        pushes = b""
        if protocol == TCP:
            sequences = _column(data, run, transport + 4, ">u4")
            begins |= sequences[1:] - sequences[:-1] != size - header_end
            flags = _column(data, run, transport + 13, "u1") & PSH
            begins |= flags[:-1] != 0
            pushes = flags.tobytes()
        unsound = _judge(data, run, packet, words)
        is_unsound = unsound.any()
        if is_unsound:
            begins |= unsound[1:] | unsound[:-1]
        edges = [*(np.flatnonzero(begins) + 1).tolist(), count]
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


def _gathered(buffer: memoryview, spans: array[int], at: int) -> Column:
    """Return eight bytes of each datagram."""
    offsets = np.frombuffer(spans, np.uint32)[::2]
    gathered: Column = np.ndarray((len(buffer) - 7 - at,), "<u8", buffer, at, (1,))[offsets]
    return gathered


def _is_constant(column: Column) -> bool:
    """Say whether all are the same. Bytes are compared sooner than numbers."""
    return column.tobytes() == column[:1].tobytes() * len(column)


def _judge(data: memoryview, run: Run, packet: Packet, words: Column) -> Column:
    """Say of each packet whether a checksum is wrong; `words` are the headers'."""
    size, transport = run[3], packet.transport
    sums = _sums(data, run, addresses_at(transport), packet.protocol + size - transport)
    if transport == 20:
        header_sums = np.add.reduce(words[:, :5], axis=1, dtype=np.int64)
        header_sums %= MODULUS
        sums |= header_sums
    unsound: Column = sums != 0
    if packet.protocol == UDP:
        unsound |= _column(data, run, transport + 6, "<u2") == 0
    return unsound


@cache
def _mask(protocol: int, transport: int, header_end: int) -> Column:
    """Return the words of `split_mask`, lengths included."""
    mask = split_mask(protocol, transport, header_end, with_length=True)
    return np.frombuffer(mask.to_bytes(header_end, "big"), "<u4")
