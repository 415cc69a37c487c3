"""The pure kernel's inner loops with numpy, where there is numpy: one operation for a column of all packets.

The packets of a train lie `stride` bytes apart, so a header field of all of them is a column of a matrix that begins at
that field, and a checksum of all of them is a sum along its rows. The sum is of 32-bit little-endian words: what a sum
in one's complement is does not depend on the byte order but for the order of its own bytes (RFC 1071 section 2), and
modulo 65,535 two words may be taken at once.

An operation on a column costs a microsecond before it does anything. For a few packets a loop is faster.
"""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from .checksum import MODULUS, residue
from .coalesce import Chunk
from .contract import MAX_DATAGRAMS
from .headers import CHECKSUM_AT, PSH, TCP, UDP
from .packet import Packet, Run, addresses_at, read_packet, split_mask
from .split import Cut, Template

_Column = npt.NDArray[Any]

_NUMBERS: Final = np.arange(MAX_DATAGRAMS, dtype=np.int64)
_COUNTERS: Final = np.arange(MAX_DATAGRAMS, dtype=np.uint64)
_ENOUGH_OF_A_FLOW: Final = 4


def _column(data: memoryview, run: Run, at: int, kind: str) -> _Column:
    """Return the field at this offset of each packet."""
    start, count, stride, _ = run
    return np.ndarray((count,), kind, data, start + at, (stride,))


def _block(data: memoryview, run: Run, at: int, width: int) -> _Column:
    """Return so many bytes of each packet, from this offset on."""
    start, count, stride, _ = run
    return np.ndarray((count, width), np.uint8, data, start + at, (stride, 1))


def _words(data: memoryview, run: Run, begin: int, end: int) -> _Column:
    """Return each packet's whole words between these offsets."""
    start, count, stride, _ = run
    return np.ndarray((count, (end - begin) >> 2), "<u4", data, start + begin, (stride, 4))


def _sums(data: memoryview, run: Run, begin: int, fixed: int) -> _Column:
    """Return the sum of each packet's bytes from this offset on, modulo 65,535, with a fixed sum added."""
    size = run[3]
    sums: _Column = np.add.reduce(_words(data, run, begin, size), axis=1, dtype=np.int64)
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

    __slots__ = ("_counters", "_nonces")

    def __init__(self) -> None:
        memory = memoryview(bytearray(12 * MAX_DATAGRAMS))
        self._counters = _column(memory, (4, MAX_DATAGRAMS, 12, 8), 0, "<u8")
        self._nonces = [memory[at : at + 12] for at in range(0, len(memory), 12)]

    def nonces(self, first: int, count: int) -> list[memoryview]:
        """Return the nonces for consecutive counters (WireGuard paper 5.4.6); they last until the next call."""
        self._counters[:count] = _COUNTERS[:count] + first
        return self._nonces[:count]

    def lay_out(self, packet: memoryview, template: Template, cut: Cut, train: memoryview, run: Run) -> None:
        """Write the first packets that a frame is cut into to a run in the train; none may have a flag of its own."""
        count = run[1]
        _, _, longest, _, protocol, transport, header_end, gso_size = cut
        header = template.header
        payloads = (header_end, count, gso_size, gso_size)
        _block(train, run, 0, header_end)[:] = np.frombuffer(header, np.uint8)
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
            sequences &= 0xFFFFFFFF
            _column(train, run, transport + 4, ">u4")[:] = sequences
        sums = _sums(train, run, transport, template.addresses_sum + protocol + longest - transport)
        _column(train, run, transport + CHECKSUM_AT[protocol], "<u2")[:] = MODULUS - sums

    def wrap(self, train: memoryview, run: Run, head: bytes, counter: int, padding: int) -> None:
        """Write a head before each packet of a run, with consecutive counters at its end, and zeros after it."""
        start, count, stride, size = run
        heads = (start - len(head), count, stride, len(head))
        _block(train, heads, 0, len(head))[:] = np.frombuffer(head, np.uint8)
        _column(train, heads, len(head) - 8, "<u8")[:] = _COUNTERS[:count] + counter
        if padding:
            _block(train, run, size, padding)[:] = 0

    def copy_payloads(self, data: memoryview, run: Run, header_end: int, out: memoryview, at: int) -> None:
        """Copy what comes after the headers of each packet, to lie one after another from `at` on."""
        _, count, _, size = run
        width = size - header_end
        _block(out, (at, count, width, width), 0, width)[:] = _block(data, run, header_end, width)

    def read_run(self, data: memoryview, run: Run) -> list[Chunk]:
        """Return chunks of the packets that a run begins with, as far as their flow goes; none if that is not far.

        Only the first has been seen to be a packet.
        """
        start, count, stride, size = run
        packet = read_packet(data, start, size)
        if not packet.signature:
            return []
        words = _words(data, run, 0, packet.header_end)
        differ = (words ^ words[0]) & _mask(packet.protocol, packet.transport, packet.header_end)
        if differ.any():
            count = int(differ.any(axis=1).argmax())
            if count < _ENOUGH_OF_A_FLOW:
                return []
            run = (start, count, stride, size)
        unsound, strayed = _judge(data, run, packet)
        pushes = _pushes(data, run, packet)
        if not (unsound.any() or strayed.any() or any(pushes[:-1])):
            return [Chunk(packet, run, bool(pushes[-1]), sound=True)]
        begins = unsound[1:] | unsound[:-1]
        begins |= strayed[1:] != strayed[:-1]
        begins |= np.frombuffer(pushes, np.uint8)[:-1] != 0
        edges = [0, *(np.flatnonzero(begins) + 1).tolist(), count]
        chunks: list[Chunk] = []
        for first, after in pairwise(edges):
            at = start + first * stride
            part = (at, after - first, stride, size)
            chunks.append(Chunk(read_packet(data, at, size), part, bool(pushes[after - 1]), not unsound[first]))
        return chunks


def _judge(data: memoryview, run: Run, packet: Packet) -> tuple[_Column, _Column]:
    """Say of each packet whether a checksum is wrong, and how far it is from where its sequence would be."""
    start, count, _, size = run
    transport = packet.transport
    sums = _sums(data, run, addresses_at(transport), packet.protocol + size - transport)
    if transport == 20:
        ids, checksums = _column(data, run, 4, ">u2"), _column(data, run, 10, ">u2")
        varying = np.add(ids, checksums, dtype=np.int64)
        varying += residue(data[start : start + 20]) - int(ids[0]) - int(checksums[0])
        varying %= MODULUS
        sums |= varying
    if packet.protocol == UDP:
        return (sums != 0) | (_column(data, run, transport + 6, "<u2") == 0), np.zeros(count, np.int64)
    strayed = _NUMBERS[:count] * (packet.header_end - size)
    strayed -= packet.sequence
    strayed += _column(data, run, transport + 4, ">u4")
    strayed &= 0xFFFFFFFF
    return sums != 0, strayed


def _pushes(data: memoryview, run: Run, packet: Packet) -> bytes:
    """Return one byte a packet: not 0 if it has PSH."""
    if packet.protocol == UDP:
        return bytes(run[1])
    return (_column(data, run, packet.transport + 13, "u1") & PSH).tobytes()


@cache
def _mask(protocol: int, transport: int, header_end: int) -> _Column:
    """Return the words of `split_mask`, lengths included."""
    mask = split_mask(protocol, transport, header_end, with_length=True)
    return np.frombuffer(mask.to_bytes(header_end, "big"), "<u4")
