"""Sending trains: with the kernel's help, and what becomes of them where it refuses."""

import errno
import os
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest

from exeunt.actors.ice import Address
from exeunt.actors.ice.ancillary import SOL_UDP, UDP_SEGMENT, Ancillary
from exeunt.actors.ice.trains import ALONE_S, MAX_ALONE, MAX_SEGMENTS, MAX_TRAIN_BYTES, Sender

THERE: Address = ("198.51.100.7", 7)


def never(_size: int, _is_train: bool) -> int:
    return 0


class Kernel:
    """A socket whose kernel refuses as it is told."""

    family = socket.AF_INET

    def __init__(self, refuse: Callable[[int, bool], int] | None = None, *, knows_segments: bool = True) -> None:
        """`refuse` gets the length and whether it is a train, and answers with an errno, or 0."""
        self.refuse: Callable[[int, bool], int] = refuse or never
        self._knows_segments = knows_segments
        self.sent: list[bytes] = []
        self.calls = 0
        self.marks: set[tuple[int, int, bytes]] = set()

    def getsockopt(self, level: int, option: int) -> int:
        assert (level, option) == (SOL_UDP, UDP_SEGMENT)
        if not self._knows_segments:
            raise OSError(errno.ENOPROTOOPT, "not here")
        return 0

    def sendmsg(self, buffers: tuple[bytes], ancillary: Ancillary, _flags: int, destination: Address | None) -> int:
        assert destination is not None
        self.calls += 1
        (data,) = buffers
        strides = [int.from_bytes(value, "little") for level, kind, value in ancillary if (level, kind) == (17, 103)]
        number = self.refuse(len(data), bool(strides))
        if number:
            raise OSError(number, os.strerror(number))
        stride = strides[0] if strides else len(data)
        self.sent += [bytes(data[at : at + stride]) for at in range(0, len(data), stride)]
        self.marks |= {item for item in ancillary if item[1] != 103}
        return len(data)


class Rig:
    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.counters: Counter[str] = Counter()
        self.errors: list[int] = []
        self.now = 100.0
        self.sender = Sender(cast("socket.socket", kernel), self.counters, self._take_error, lambda: self.now)

    def _take_error(self, error: OSError) -> bool:
        self.errors.append(error.errno or 0)
        return True

    def send(self, datagrams: list[bytes], **changes: Any) -> int:
        train = memoryview(b"".join(datagrams))
        return self.sender.send_train(train, len(datagrams[0]), (), changes.get("to", THERE), changes.get("ecn", 0))


def train_of(count: int, length: int = 100, last: int = 60) -> list[bytes]:
    return [os.urandom(length) for _ in range(count - 1)] + [os.urandom(last)]


@pytest.mark.parametrize("knows_segments", [True, False])
@pytest.mark.parametrize(
    ("count", "length"), [(1, 100), (2, 100), (64, 100), (65, 100), (200, 100), (90, 1452), (3, 65_000)]
)
def test_a_train_is_cut_into_pieces_that_the_kernel_takes(count: int, length: int, knows_segments: bool) -> None:
    rig, train = Rig(Kernel(knows_segments=knows_segments)), train_of(count, length)
    assert rig.send(train) == count
    assert rig.kernel.sent == train
    at_once = min(MAX_SEGMENTS, MAX_TRAIN_BYTES // length) if knows_segments else 1
    assert rig.kernel.calls == -(-count // at_once)
    assert not rig.counters


@pytest.mark.parametrize("number", [errno.EIO, errno.EOPNOTSUPP, errno.ENOPROTOOPT])
def test_a_kernel_that_cannot_is_not_asked_again(number: int) -> None:
    rig, train = Rig(Kernel(lambda _size, is_train: number if is_train else 0)), train_of(5)
    assert rig.send(train) == 5
    assert not rig.sender.is_segmenting
    assert rig.send(train) == 5
    assert rig.kernel.sent == train * 2
    assert rig.kernel.calls == 1 + 5 + 5
    assert rig.counters == {"segmentation_refused": 1}
    assert rig.errors == []


def test_a_train_that_is_refused_in_the_middle_goes_whole() -> None:
    rig, train = Rig(Kernel()), train_of(150)
    rig.kernel.refuse = lambda _size, is_train: errno.EINVAL if is_train and rig.kernel.calls == 2 else 0
    assert rig.send(train) == 150
    assert rig.kernel.sent == train


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EMSGSIZE])
def test_a_narrow_path_is_spared_trains_for_a_while_and_others_are_not(number: int) -> None:
    rig, train = Rig(Kernel(lambda _size, is_train: number if is_train else 0)), train_of(5)
    assert rig.send(train) == 5
    assert rig.send(train) == 5
    assert rig.counters == {"segmentation_refused": 1}
    rig.kernel.refuse, narrow = never, rig.kernel.refuse
    calls = rig.kernel.calls
    assert rig.send(train_of(5, length=99)) == 5
    assert rig.kernel.calls == calls + 1  # shorter ones go at once
    rig.kernel.refuse = narrow
    rig.send(train, to=("198.51.100.8", 8))
    assert rig.counters == {"segmentation_refused": 2}
    rig.now += ALONE_S
    assert rig.send(train) == 5
    assert rig.counters == {"segmentation_refused": 3}
    assert rig.sender.is_segmenting


def test_who_is_spared_is_bounded() -> None:
    rig, train = Rig(Kernel(lambda _size, is_train: errno.EINVAL if is_train else 0)), train_of(2)
    for port in range(MAX_ALONE + 1):
        rig.send(train, to=("198.51.100.7", port))
    refused = MAX_ALONE + 1
    assert rig.counters == {"segmentation_refused": refused}
    rig.send(train, to=("198.51.100.7", MAX_ALONE))
    assert rig.counters == {"segmentation_refused": refused}
    rig.send(train, to=("198.51.100.7", 0))  # the oldest was forgotten, and is asked for again
    assert rig.counters == {"segmentation_refused": refused + 1}


def test_what_is_too_big_is_counted() -> None:
    rig = Rig(Kernel(lambda _size, _is_train: errno.EMSGSIZE))
    assert rig.send(train_of(5)) == 0
    assert rig.counters == {"segmentation_refused": 1, "too_big": 5}
    assert rig.errors == [errno.EMSGSIZE] * 6, "an earlier datagram may have met it: the train, then each alone"


@pytest.mark.parametrize("knows_segments", [True, False])
def test_a_full_buffer_drops_the_rest_and_counts_it(knows_segments: bool) -> None:
    rig, train = Rig(Kernel(knows_segments=knows_segments)), train_of(200)
    rig.kernel.refuse = lambda _size, _is_train: errno.EAGAIN if rig.kernel.calls > 2 else 0
    went = 128 if knows_segments else 2
    assert rig.send(train) == went
    assert rig.kernel.sent == train[:went]
    assert rig.counters == {"send_buffer_full": 200 - went}


def test_a_refusal_that_others_met_costs_nothing() -> None:
    rig, train = Rig(Kernel()), train_of(10)
    rig.kernel.refuse = lambda _size, _is_train: errno.ECONNREFUSED if rig.kernel.calls == 1 else 0
    assert rig.send(train) == 10
    assert rig.errors == [errno.ECONNREFUSED]
    assert not rig.counters


@pytest.mark.parametrize("number", [errno.ECONNREFUSED, errno.EINVAL, errno.EAGAIN])
def test_what_somebody_else_was_refused_is_tried_here(number: int) -> None:
    rig, train = Rig(Kernel(lambda _size, is_train: errno.EINVAL if is_train else 0)), train_of(5)
    assert rig.sender.may_segment(THERE)
    rig.sender.send_rest(memoryview(b"".join(train)), 100, (), THERE, ecn=0, error=number)
    assert rig.kernel.sent == train
    assert rig.errors == [number]
    assert not rig.sender.may_segment(THERE)
    assert rig.sender.may_segment(("198.51.100.8", 8))


@pytest.mark.parametrize("ecn", [1, 2, 3])
def test_a_mark_goes_with_each(ecn: int) -> None:
    rig = Rig(Kernel())
    rig.send(train_of(3), ecn=ecn)
    assert rig.kernel.marks == {(socket.IPPROTO_IP, socket.IP_TOS, ecn.to_bytes(4, "little"))}


# The kernel of this machine


@pytest.fixture(params=["127.0.0.1", "::1"])
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[socket.socket, socket.socket]]:
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as ours, socket.socket(family, socket.SOCK_DGRAM) as theirs:
        for sock in (ours, theirs):
            sock.bind((request.param, 0))
            sock.setblocking(False)
        yield ours, theirs


@pytest.mark.parametrize("helps", [True, False])
def test_datagrams_arrive_as_they_were_sent(pair: tuple[socket.socket, socket.socket], helps: bool) -> None:
    ours, theirs = pair
    train = train_of(90, 700)
    sender = Sender(ours, Counter(), lambda _: False)
    sender.is_segmenting = sender.is_segmenting and helps
    assert sender.send_train(memoryview(b"".join(train)), 700, (), theirs.getsockname()[:2]) == 90
    assert [theirs.recv(2000) for _ in train] == train
