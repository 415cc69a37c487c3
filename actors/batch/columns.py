"""The pure kernel's inner loops with numpy, where there is numpy: one operation for a column of all packets.

The packets of a train lie `stride` bytes apart, so a header field of all of them is a column of a matrix that begins at
that field, and a checksum of all of them is a sum along its rows. The sum is of 32-bit little-endian words: what a sum
in one's complement is does not depend on the byte order but for the order of its own bytes (RFC 1071 section 2), and
modulo 65,535 two words may be taken at once.

An operation on a column costs a microsecond before it does anything. For a few packets a loop is faster.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from .checksum import MODULUS, residue
from .coalesce import Chunk, read_packet
from .contract import MAX_DATAGRAMS
from .headers import CHECKSUM_AT, PSH, TCP
from .split import Cut, Template

_Column = npt.NDArray[Any]

_NUMBERS: Final = np.arange(MAX_DATAGRAMS, dtype=np.int64)
_COUNTERS: Final = np.arange(MAX_DATAGRAMS, dtype=np.uint64)
_ENOUGH_OF_A_FLOW: Final = 4


def _column(data: memoryview, start: int, rows: int, stride: int, kind: str) -> _Column:
    """Return one field of each row, the first at `start`."""
    return np.ndarray((rows,), kind, data, start, (stride,))


def _block(data: memoryview, start: int, rows: int, stride: int, width: int) -> _Column:
    """Return so many bytes of each row."""
    return np.ndarray((rows, width), np.uint8, data, start, (stride, 1))


def _row_sums(data: memoryview, start: int, rows: int, stride: int, width: int) -> _Column:
    """Return the sum of each row's bytes as little-endian words, unreduced; a missing last byte is zero."""
    words = np.ndarray((rows, width >> 2), "<u4", data, start, (stride, 4))
    sums: _Column = np.add.reduce(words, axis=1, dtype=np.int64)
    end = start + (width & ~3)
    if width & 2:
        sums += _column(data, end, rows, stride, "<u2")
    if width & 1:
        sums += _column(data, end + (width & 2), rows, stride, "u1")
    return sums


def _swapped(total: int) -> int:
    """Return a sum of words in network order as one of little-endian words."""
    total %= MODULUS
    return (total & 0xFF) << 8 | total >> 8


@cache
def _compared(protocol: int, transport: int, header_end: int) -> _Column:
    """Return a mask of the header's words: ones where neighbours of equal size must be equal."""
    mask = bytearray(b"\xff" * header_end)
    if transport == 20:
        mask[4:6] = mask[10:12] = bytes(2)
    at = transport + CHECKSUM_AT[protocol]
    mask[at : at + 2] = bytes(2)
    if protocol == TCP:
        mask[transport + 4 : transport + 8] = bytes(4)
        mask[transport + 13] ^= PSH
    return np.frombuffer(bytes(mask), "<u4")


def _chunks(data: memoryview, start: int, stride: int, size: int, unsound: _Column, begins: _Column) -> list[Chunk]:
    """Cut a run where a packet is unsound, or (`begins`, from the second packet on) does not follow the one before."""
    rows = len(unsound)
    if not (unsound.any() or begins.any()):
        return [_chunk(data, start, rows, stride, size, sound=True)]
    begins = begins | unsound[1:] | unsound[:-1]
    edges = [0, *(np.flatnonzero(begins) + 1).tolist(), rows]
    return [
        _chunk(data, start + first * stride, after - first, stride, size, sound=not bool(unsound[first]))
        for first, after in zip(edges[:-1], edges[1:], strict=True)
    ]


def _chunk(data: memoryview, start: int, count: int, stride: int, size: int, *, sound: bool) -> Chunk:
    packet = read_packet(data, start, size)
    last = start + (count - 1) * stride
    pushes = packet.protocol == TCP and bool(data[last + packet.transport + 13] & PSH)
    return Chunk(packet, start, count, stride, size, pushes, sound)


class Columns:
    """What is done by columns."""

    __slots__ = ("_counters", "_nonces")

    def __init__(self) -> None:
        memory = memoryview(bytearray(12 * MAX_DATAGRAMS))
        self._counters = _column(memory, 4, MAX_DATAGRAMS, 12, "<u8")
        self._nonces = [memory[at : at + 12] for at in range(0, len(memory), 12)]

    def nonces(self, first: int, count: int) -> list[memoryview]:
        """Return the nonces for consecutive counters (WireGuard paper 5.4.6); they last until the next call."""
        self._counters[:count] = _COUNTERS[:count] + first
        return self._nonces[:count]

    @staticmethod
    def lay_out_all_but_last(
        packet: memoryview, cut: Cut, template: Template, train: memoryview, stride: int, *, before: bytes, counter: int
    ) -> None:
        """Write all packets but the last into the train, which begins with the first; none may have a flag of its own.

        `before` goes before each, and is a transport message's header at its end, but for the counter.
        """
        rows = cut.packets - 1
        _, _, longest, _, protocol, transport, header_end, gso_size = cut
        header = template.header
        begin = len(before)
        numbers = _NUMBERS[:rows]
        _block(train, 0, rows, stride, begin + header_end)[:] = np.frombuffer(before + header, np.uint8)
        _block(train, begin + header_end, rows, stride, gso_size)[:] = _block(
            packet, header_end, rows, gso_size, gso_size
        )
        _column(train, begin - 8, rows, stride, "<u8")[:] = _COUNTERS[:rows] + counter
        if template.is_v4:
            ids = numbers + (header[4] << 8 | header[5])
            ids &= 0xFFFF
            _column(train, begin + 4, rows, stride, ">u2")[:] = ids
            ids += template.ip_sum
            _column(train, begin + 10, rows, stride, ">u2")[:] = -ids % MODULUS
        at = begin + transport
        if protocol == TCP:
            sequences = numbers * gso_size
            sequences += int.from_bytes(header[transport + 4 : transport + 8], "big")
            _column(train, at + 4, rows, stride, ">u4")[:] = sequences & 0xFFFFFFFF
        sums = _row_sums(train, at, rows, stride, longest - transport)
        sums += _swapped(template.addresses_sum + protocol + longest - transport)
        sums %= MODULUS
        _column(train, at + CHECKSUM_AT[protocol], rows, stride, "<u2")[:] = MODULUS - sums

    @staticmethod
    def fill_zeros(train: memoryview, start: int, rows: int, stride: int, width: int) -> None:
        """Set so many bytes of each row to zero."""
        _block(train, start, rows, stride, width)[:] = 0

    @staticmethod
    def copy_payloads(
        data: memoryview, start: int, rows: int, stride: int, width: int, out: memoryview, at: int
    ) -> None:
        """Copy so many bytes of each row, to lie one after another."""
        _block(out, at, rows, width, width)[:] = _block(data, start, rows, stride, width)

    @staticmethod
    def read_run(data: memoryview, start: int, rows: int, stride: int, size: int) -> list[Chunk]:
        """Return the chunks that packets of one length begin with, as far as they are of one flow; none if that is not far.

        The first packet is one, of `size` bytes.
        """
        packet = read_packet(data, start, size)
        if not packet.signature:
            return []
        _, _, protocol, transport, header_end, sequence, _ = packet
        words = np.ndarray((rows, header_end >> 2), "<u4", data, start, (stride, 4))
        differs = ((words ^ words[0]) & _compared(protocol, transport, header_end)).any(axis=1)
        rows = int(differs.argmax()) or rows
        if rows < _ENOUGH_OF_A_FLOW:
            return []
        at = start + transport
        addresses = data[start + 12 : at] if transport == 20 else data[start + 8 : at]
        sums = _row_sums(data, at, rows, stride, size - transport)
        sums += _swapped(residue(addresses) + protocol + size - transport)
        unsound = sums % MODULUS != 0
        if transport == 20:
            ids, checksums = (
                _column(data, start + 4, rows, stride, ">u2"),
                _column(data, start + 10, rows, stride, ">u2"),
            )
            fixed = residue(data[start : start + 4]) + residue(data[start + 6 : start + 10]) + residue(addresses)
            unsound |= (np.add(ids, checksums, dtype=np.int64) + fixed) % MODULUS != 0
        if protocol != TCP:
            unsound |= _column(data, at + CHECKSUM_AT[protocol], rows, stride, "<u2") == 0
            return _chunks(data, start, stride, size, unsound, unsound[1:])
        expected = _NUMBERS[:rows] * (size - header_end) + sequence
        strayed = (_column(data, at + 4, rows, stride, ">u4") - expected) & 0xFFFFFFFF
        ends = (_column(data, at + 13, rows, stride, "u1") & PSH).astype(bool)
        return _chunks(data, start, stride, size, unsound, (strayed[1:] != strayed[:-1]) | ends[:-1])
