"""Where traffic crosses a worker without coming by Python (`batch.lanes`): its lanes, device, buffers, and owners.

What went by is booked by each owner within `BOOK_S`, all owners at once, so a busy connection is looked at fifty times
a second and not for each burst. Where more than twenty are busy it is less often, a thousand times a second for all of
them, yet none waits for longer than `BOOK_MOST_S`. Nothing that is decided by it is that exact: deadlines of a second
at least.
"""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Callable
from functools import partial
from typing import Any, Final, Protocol

from exeunt.runtime.wakeups import call_later

from ..batch.answers import Answers
from ..batch.choice import choose
from ..batch.contract import MAX_DATAGRAMS, OUT_BYTES_EACH, VNET_BYTES
from ..batch.lanes import Lane, Lanes, Passed
from .frames import READ_FRAMES, FrameDevice

BOOK_S: Final = 0.02
BOOK_EACH_S: Final = 0.001
"""So much later for each owner that the last time had, if that is more."""
BOOK_MOST_S: Final = 0.1
MOST_SOURCES: Final = 8
"""Addresses of this host's tunnel that lanes know at once."""


class LaneOwner(Protocol):
    """Who has a lane."""

    def book(self) -> None:
        """Read the books: something went by."""

    def take_rest(self, out: memoryview, frames: list[tuple[int, int, int]], ecn: int) -> None:
        """Take frames of a burst that was opened, and is in the books; they came with that mark."""

    def take_unsent(self, train: memoryview, stride: int, ecn: int, error: int) -> None:
        """Take a train that was sealed, and is in the books, but was refused with this errno."""


class Crossing:
    """A worker's."""

    def __init__(self, loop: asyncio.AbstractEventLoop, lanes: Lanes) -> None:
        self._loop = loop
        self._lanes = lanes
        self._lane_of: dict[object, Lane] = {}
        """By who carries packets to the peer."""
        self._device: FrameDevice | None = None
        self._sources: tuple[bytes, ...] = ()
        self._merges = False
        self._out = memoryview(bytearray())
        self._noted: list[LaneOwner] = []
        self._book_s = BOOK_S
        self._timer: asyncio.TimerHandle | None = None

    # --- what there is ---

    def set_device(self, device: FrameDevice | None, sources: frozenset[bytes]) -> None:
        """Use this device from now on, for what comes from these addresses."""
        self._device, self._sources = device, tuple(sources)
        self._adapt()

    def _adapt(self) -> None:
        device = self._device
        if device is None or len(self._sources) > MOST_SOURCES:
            self._lanes.set_device(-1, 0, False, ())
            return
        self._merges = device.merges
        header = 0 if device.has_frames else VNET_BYTES
        self._lanes.set_device(device.fd, header, device.merges, self._sources)

    def open(self, sink: object, **how: Any) -> Lane:
        """Begin with a lane, for which see `Lanes.open`; `sink` carries packets to its peer."""
        lane = self._lanes.open(**how)
        self._lane_of[sink] = lane
        return lane

    def close(self, sink: object) -> None:
        """End the sink's lane. Idempotent."""
        lane = self._lane_of.pop(sink, None)
        if lane is not None:
            self._lanes.close(lane)

    def know(self, address: bytes, sink: object) -> None:
        """An inner address is this sink's."""
        lane = self._lane_of.get(sink)
        if lane is not None:
            self._lanes.know(address, lane)

    def forget(self) -> None:
        """Whose inner addresses are has changed."""
        self._lanes.forget()

    @property
    def answers(self) -> Answers:
        """What answers the checks of peers that are idle, in the same call."""
        return self._lanes

    # --- what goes by ---

    def receive(self, descriptor: int, buffer: memoryview, at: int, most: int, lonely: bool) -> Passed:
        """See `ice.reading.Passing`."""
        if len(self._out) < len(buffer) + MAX_DATAGRAMS * OUT_BYTES_EACH:
            self._out = memoryview(bytearray(len(buffer) + MAX_DATAGRAMS * OUT_BYTES_EACH))
        end, reads, error, runs, data, rest, noted = self._lanes.receive(
            descriptor, buffer, at, most, lonely, self._out
        )
        todo: list[Callable[[], object]] = []
        if rest is not None:
            noted = [owner for owner in noted if owner is not rest[0]]  # who reads his books now
            todo.append(partial(self._take_rest, *rest))
        if data:
            self._note(noted)
        else:  # keepalives: nobody waits, and so there need be no second wake-up
            todo += [owner.book for owner in noted]
        return end, reads, error, runs, data, todo

    def _take_rest(self, owner: LaneOwner, frames: list[tuple[int, int, int]], ecn: int) -> None:
        owner.take_rest(self._out, frames, ecn)
        if self._device is not None and self._device.merges != self._merges:
            self._adapt()

    def read(self, device: FrameDevice, train: memoryview) -> array[int]:
        """As `FrameDevice.read`, of what does not go by; it may be nothing. `train` is free to be used."""
        found, reads, error, unsent, noted = self._lanes.send(device.buffer, READ_FRAMES, train)
        self._note(noted)
        for owner, start, end, *how in unsent:
            owner.take_unsent(train[start:end], *how)
        return device.found(found, error, reads)

    def _note(self, owners: list[LaneOwner]) -> None:
        self._noted += owners
        if self._noted and self._timer is None:
            self._timer = call_later(self._loop, self._book_s, "traffic is booked", self._book)

    def _book(self) -> None:
        self._timer = None
        owners, self._noted = self._noted, []
        self._book_s = max(BOOK_S, min(len(owners) * BOOK_EACH_S, BOOK_MOST_S))
        for number, owner in enumerate(owners):
            try:
                owner.book()
            except BaseException:  # it costs the others nothing
                self._note(owners[number + 1 :])
                raise


def crossing(loop: asyncio.AbstractEventLoop, lanes: Callable[[], Lanes] | None = None) -> Crossing | None:
    """Return a worker's, or None where the kernel has no lanes."""
    lanes = lanes or choose().lanes
    return None if lanes is None else Crossing(loop, lanes())
