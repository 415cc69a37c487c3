"""A burst of datagrams, taken apart: transport messages to one session that follow one another are one run.

Nearly always the whole burst is one run, unless it is longer than a kernel takes at once. What is no transport message
stands alone, so that a handshake takes effect where it came: what follows it may already be sealed under its keys.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import Final, TypeAlias

from ..batch.contract import MAX_DATAGRAMS
from .wire import KEEPALIVE_BYTES, MessageType

_HEAD_BYTES: Final = 8
"""Type and receiver index, the first eight bytes of a transport message."""
_TRANSPORT: Final = MessageType.TRANSPORT.to_bytes(4, "little")
_MOST: Final = 2 * MAX_DATAGRAMS

Run: TypeAlias = "tuple[int | None, array[int]]"


def runs_of(buffer: memoryview, spans: array[int]) -> Iterator[Run]:
    """Return (receiver index, spans) of each run, and (None, span) of each datagram that is no transport message.

    `spans` are offset, length, offset, length… in the buffer. A kernel's `index_of` knows sooner when all are one run.
    """
    start, latest = 0, b""
    for at in range(0, len(spans), 2):
        head = bytes(buffer[spans[at] : spans[at] + _HEAD_BYTES])
        if spans[at + 1] < KEEPALIVE_BYTES or head[:4] != _TRANSPORT:
            head = b""
        if head != latest or not head or at - start == _MOST:
            if at > start:
                yield _index(latest), spans[start:at]
            start, latest = at, head
    if spans:
        yield _index(latest), spans[start:]


def _index(head: bytes) -> int | None:
    return int.from_bytes(head[4:], "little") if head else None
