"""Sealing in Python: frames become packets, packets become a train.

What is done to each packet but for the cipher is done for many at once where that pays, and many are not only those of
one frame: frames that are cut alike follow one another in a train without a gap, so they are laid out and sealed as one
run, of whatever flows they are.
"""

from __future__ import annotations

import struct
from array import array
from collections import deque
from itertools import repeat
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from .contract import MAX_DATAGRAMS, TRAIN_BYTES, VNET_BYTES, Sealed
from .headers import CWR
from .packet import Run
from .split import Cut, Part, Template, complete, lay_out, read_frame

if TYPE_CHECKING:
    from .columns import Columns

ENOUGH: Final = 8
"""From so many packets on, columns are worth it."""
TAG_BYTES: Final = 16
TRANSPORT: Final = struct.Struct("<IIQ")
"""A transport message's header: type 4 and three zeros, receiver index, counter (WireGuard paper 5.4.6)."""
TYPE: Final = 4
NONCE: Final = struct.Struct("<4xQ")
_CHANNEL: Final = struct.Struct("!HH")
_PADDING: Final = 16
_ZEROS: Final = bytes(_PADDING)
_STRIDE_MAX: Final = 65_535
_MALFORMED: Final = Sealed(0, 0, 0)


def padded_bytes(size: int, mtu: int) -> int:
    """Return how long a packet of `size` bytes is when sealed (WireGuard paper 5.4.6)."""
    return max(size, min(-(-size // _PADDING) * _PADDING, mtu))


class _Group:
    """Frames in a row that are cut alike, to be sealed as one run: only the last may have a shorter packet."""

    __slots__ = ("counter", "end", "packets", "padded", "parts", "start", "stride")

    def __init__(self, start: int, padded: int, stride: int, counter: int) -> None:
        self.start = self.end = start
        """Where in the train the first packet is to be; and the one behind the last, if that is not shorter."""
        self.padded = padded
        """Bytes of each packet, padding included."""
        self.stride = stride
        self.counter = counter
        self.parts: list[Part] = []
        self.packets = 0

    def admits(self, template: Template, cut: Cut) -> bool:
        """Say whether a frame may follow."""
        _, leader, before = self.parts[-1]
        _, packets, longest, _, protocol, transport, header_end, _ = cut
        _, _, its_longest, its_last, *its_headers, _ = before
        return (
            its_longest == its_last == longest
            and its_headers == [protocol, transport, header_end]
            and leader.is_v4 == template.is_v4
            and not (leader.flags | template.flags) & CWR
            and self.packets + packets <= MAX_DATAGRAMS
        )

    def add(self, packet: memoryview, template: Template, cut: Cut) -> None:
        """Have it follow."""
        self.parts.append((packet, template, cut))
        self.packets += cut.packets
        self.end += cut.packets * self.stride


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
        whole = array("I", (0, len(frame)))
        return self.seal_each(frame, whole, train, counter=counter, mtu=mtu, channel=channel)[0]

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
        before = TRANSPORT.size if channel is None else _CHANNEL.size + TRANSPORT.size
        used, room = 0, len(train)
        group: _Group | None = None
        for at, there in zip(spans[::2], spans[1::2], strict=True):
            if sealed and room - used < TRAIN_BYTES:
                break
            frame = buffer[at : at + there]
            cut = read_frame(frame)
            padded = 0 if cut is None else padded_bytes(cut.longest, mtu)
            stride = before + padded + TAG_BYTES
            if cut is None or stride > _STRIDE_MAX:
                sealed.append(_MALFORMED)
                continue
            size, packets, longest, last, protocol, _, _, _ = cut
            packet = frame[VNET_BYTES : VNET_BYTES + size]
            start = used + before
            if not protocol:
                complete(packet, cut)
                train[start : start + size] = packet
                self._seal_few(train, (start, 1, stride, size), padded, counter, channel)
                used += stride
                sealed.append(Sealed(1, stride, stride))
            else:
                template = Template(packet, cut)
                if group is None or start != group.end or not group.admits(template, cut):
                    if group is not None:
                        self._seal_group(group, train, mtu, channel)
                    group = _Group(start, padded, stride, counter)
                group.add(packet, template, cut)
                total = packets * stride
                if last != longest:
                    total += padded_bytes(last, mtu) - padded
                used += total
                sealed.append(Sealed(packets, stride, total))
            counter += packets
        if group is not None:
            self._seal_group(group, train, mtu, channel)
        return sealed

    def _head(self, channel: int | None, padded: int, counter: int) -> bytes:
        head = TRANSPORT.pack(TYPE, self._remote_index, counter)
        return head if channel is None else _CHANNEL.pack(channel, TRANSPORT.size + padded + TAG_BYTES) + head

    def _seal_few(self, train: memoryview, run: Run, padded: int, counter: int, channel: int | None) -> None:
        """Pad and seal packets where they are, each with its head before it."""
        start, count, stride, size = run
        head_bytes = TRANSPORT.size if channel is None else _CHANNEL.size + TRANSPORT.size
        for number in range(counter, counter + count):
            end = start + padded
            train[start - head_bytes : start] = self._head(channel, padded, number)
            if padded > size:
                train[start + size : end] = _ZEROS[: padded - size]
            self._encrypt_into(NONCE.pack(number), train[start:end], None, train[start : end + TAG_BYTES])
            start += stride

    def _seal_group(self, group: _Group, train: memoryview, mtu: int, channel: int | None) -> None:
        """Lay out and seal all its packets."""
        start, stride, padded, counter, parts = group.start, group.stride, group.padded, group.counter, group.parts
        _, template, cut = parts[-1]
        full = group.packets - cut.has_rest
        run = start, full, stride, cut.longest
        if self._columns is not None and full >= ENOUGH and not template.flags & CWR:
            self._seal_run(self._columns, group, train, run, channel)
            if cut.has_rest:
                packet, first = parts[-1][0], cut.packets - 1
                lay_out(packet, template, cut, train, start=start + full * stride, stride=stride, first=first)
        else:
            at = start
            for packet, template, cut in parts:
                lay_out(packet, template, cut, train, start=at, stride=stride)
                at += cut.packets * stride
            self._seal_few(train, run, padded, counter, channel)
        if cut.has_rest:
            rest = start + full * stride, 1, stride, cut.last
            self._seal_few(train, rest, padded_bytes(cut.last, mtu), counter + full, channel)

    def _seal_run(self, columns: Columns, group: _Group, train: memoryview, run: Run, channel: int | None) -> None:
        """Lay out, pad and seal all packets of a group but a shorter one at its end."""
        start, count, stride, size = run
        padded = group.padded
        head = self._head(channel, padded, group.counter)
        counters = columns.counters(group.counter, count)
        columns.lay_out(group.parts, train, run, head=head, counters=counters)
        if padded > size:
            columns.pad(train, run, padded - size)
        if start == len(head):  # the beginning of a train is mostly at the same place
            plain, sealed = columns.slices(train, (start, count, stride, padded), TAG_BYTES)
        else:
            starts = range(start, start + count * stride, stride)
            plain = [train[at : at + padded] for at in starts]
            sealed = [train[at : at + padded + TAG_BYTES] for at in starts]
        deque(map(self._encrypt_into, columns.nonces(counters), plain, repeat(None), sealed), maxlen=0)
