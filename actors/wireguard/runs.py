"""A burst of datagrams, taken apart: transport messages to one session that follow one another are one run.

Nearly always the whole burst is one run, unless it is longer than a kernel takes at once. What is no transport message
stands alone, so that a handshake takes effect where it came: what follows it may already be sealed under its keys.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator
from typing import Final

from ..batch.contract import MAX_DATAGRAMS
from .wire import KEEPALIVE_BYTES, MessageType

_HEAD: Final = struct.Struct("<Q")
"""Type and receiver index, the first eight bytes of a transport message, as one number."""
_MOST: Final = 2 * MAX_DATAGRAMS
_TYPE_BITS: Final = 0xFFFF_FFFF


def runs_of(buffer: memoryview, spans: array[int]) -> Iterator[tuple[int | None, array[int]]]:
    """Yield (receiver index, spans) of each run, and (None, span) of each datagram that is no transport message.

    `spans` are offset, length, offset, length… in the buffer.
    """
    read = _HEAD.unpack_from
    start, head = 0, -1
    for at in range(0, len(spans), 2):
        word = -1
        if spans[at + 1] >= KEEPALIVE_BYTES:
            (word,) = read(buffer, spans[at])
            if word & _TYPE_BITS != MessageType.TRANSPORT:
                word = -1
        if word != head or word < 0 or at - start == _MOST:
            if at > start:
                yield _index(head), spans[start:at]
            start, head = at, word
    if spans:
        yield _index(head), spans[start:] if start else spans


def _index(head: int) -> int | None:
    return None if head < 0 else head >> 32
