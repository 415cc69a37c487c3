"""When books are read, and by whom; the lanes are played."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest

from exeunt.actors.batch.lanes import Lanes
from exeunt.actors.device import crossing
from exeunt.actors.device.crossing import MOST_SOURCES, Crossing
from exeunt.actors.device.frames import FrameDevice
from exeunt.runtime.wakeups import wakeups_of


class PlayedLanes:
    """Answers as it is told, and notes what it is told."""

    def __init__(self) -> None:
        self.answer: tuple[Any, ...] = ()
        self.devices: list[tuple[int, int, bool, tuple[bytes, ...]]] = []
        self.known: list[tuple[bytes, object]] = []
        self.closed: list[object] = []

    def receive(self, *_: object) -> Any:
        return self.answer

    def send(self, *_: object) -> Any:
        return self.answer

    def set_device(self, *device: Any) -> None:
        self.devices.append(cast("tuple[int, int, bool, tuple[bytes, ...]]", device))

    def open(self, *, owner: object) -> object:
        return f"lane of {owner}"

    def close(self, lane: object) -> None:
        self.closed.append(lane)

    def know(self, address: bytes, lane: object) -> None:
        self.known.append((address, lane))


class Owner:
    def __init__(self, *, raises: bool = False) -> None:
        self.booked = asyncio.Event()
        self.books = 0
        self.took: list[tuple[Any, ...]] = []
        self._raises = raises

    def book(self) -> None:
        self.books += 1
        self.booked.set()
        if self._raises:
            raise ZeroDivisionError

    def take_rest(self, _out: memoryview, frames: list[tuple[int, int, int]], ecn: int) -> None:
        self.took.append((frames, ecn))

    def take_unsent(self, train: memoryview, stride: int, ecn: int, error: int) -> None:
        self.took.append((bytes(train), stride, ecn, error))


class PlayedDevice:
    fd, has_frames, merges = 7, True, True
    buffer = memoryview(bytearray(10))
    found = staticmethod(FrameDevice.found)


class Rig:
    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.lanes = PlayedLanes()
        self.crossing = Crossing(self.loop, cast("Lanes", self.lanes))

    def receive(self, *, data: int, noted: Sequence[Owner], rest: Any = None) -> Sequence[Any]:
        self.lanes.answer = (0, 1, 11, [], data, rest, list(noted))
        return self.crossing.receive(3, memoryview(bytearray(10)), 0, 1, False)[5]

    @property
    def wakeups(self) -> int:
        return wakeups_of(self.loop).counts.get("timer:traffic is booked", 0)


async def test_data_of_many_is_booked_with_one_wake_up() -> None:
    rig, owners = Rig(), [Owner(), Owner(raises=True), Owner()]
    complaints: list[dict[str, Any]] = []
    rig.loop.set_exception_handler(lambda _loop, complaint: complaints.append(complaint))
    assert rig.receive(data=1, noted=owners[:1]) == []
    assert rig.receive(data=1, noted=owners[1:]) == []
    async with asyncio.timeout(5):
        await owners[2].booked.wait()
    assert [owner.books for owner in owners] == [1, 1, 1]
    assert len(complaints) == 1
    assert rig.wakeups == 2  # one more for whoever comes behind who raised


async def test_many_are_booked_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    rig, delays = Rig(), list[float]()

    def later(loop: asyncio.AbstractEventLoop, delay_s: float, _reason: str, call: Callable[[], object]) -> Any:
        delays.append(delay_s)
        return loop.call_soon(call)

    monkeypatch.setattr(crossing, "call_later", later)
    for busy in (1, 20, 50, 500, 3, 1):
        owners = [Owner() for _ in range(busy)]
        rig.receive(data=1, noted=owners)
        await owners[-1].booked.wait()
        assert all(owner.books == 1 for owner in owners)
    assert delays == [0.02, 0.02, 0.02, 0.05, 0.1, 0.02]


async def test_keepalives_are_booked_at_once() -> None:
    rig, owner = Rig(), Owner()
    for call in rig.receive(data=0, noted=[owner]):
        call()
    assert owner.books == 1
    assert rig.wakeups == 0


async def test_who_is_given_the_rest_is_not_woken_for_it() -> None:
    rig, owner, other = Rig(), Owner(), Owner()
    for call in rig.receive(data=1, noted=[owner, other], rest=(owner, [(0, 5, 1)], 2)):
        call()
    assert owner.took == [([(0, 5, 1)], 2)]
    await other.booked.wait()
    assert owner.books == 0


async def test_a_device_that_merges_no_more_is_told_of() -> None:
    rig, owner, device = Rig(), Owner(), PlayedDevice()
    rig.crossing.set_device(cast("FrameDevice", device), frozenset({bytes(4)}))
    device.merges = False
    for call in rig.receive(data=1, noted=[], rest=(owner, [], 0)):
        call()
    assert rig.lanes.devices == [(7, 0, True, (bytes(4),)), (7, 0, False, (bytes(4),))]
    many = frozenset(bytes([number]) * 4 for number in range(MOST_SOURCES + 1))
    rig.crossing.set_device(cast("FrameDevice", device), many)
    rig.crossing.set_device(None, frozenset())
    assert [device for device, *_ in rig.lanes.devices[2:]] == [-1, -1]


async def test_what_was_refused_and_what_is_left_is_given_on() -> None:
    rig, owner, device = Rig(), Owner(), cast("FrameDevice", PlayedDevice())
    train = memoryview(bytearray(b"abcdef"))
    rig.lanes.answer = (b"\1\0\0\0\2\0\0\0", 2, 11, [(owner, 1, 4, 2, 3, 111)], [])
    assert list(rig.crossing.read(device, train)) == [1, 2]
    assert owner.took == [(b"bcd", 2, 3, 111)]
    rig.lanes.answer = (b"", 1, 11, [], [])
    assert not rig.crossing.read(device, train)
    rig.lanes.answer = (b"", 0, 11, [], [])
    with pytest.raises(BlockingIOError):
        rig.crossing.read(device, train)
    rig.lanes.answer = (b"", 0, -1, [], [])
    with pytest.raises(EOFError):
        rig.crossing.read(device, train)


async def test_addresses_are_told_of_who_has_a_lane() -> None:
    rig = Rig()
    rig.crossing.know(b"1", "sink")
    rig.crossing.open("sink", owner="it")
    rig.crossing.know(b"2", "sink")
    rig.crossing.close("sink")
    rig.crossing.close("sink")
    rig.crossing.know(b"3", "sink")
    assert rig.lanes.known == [(b"2", "lane of it")]
    assert rig.lanes.closed == ["lane of it"]
