"""What a relay sends in one call: what may go together, in order; and what happens where the kernel refuses it."""

import errno
import socket
from typing import cast

import pytest

from exeunt.actors.ice.trains import MAX_SEGMENTS
from exeunt.actors.turn import Listener, Transmit
from exeunt.clients.relay_trains import runs, send_run

PEER, OTHER = ("203.0.113.9", 5000), ("203.0.113.9", 5001)


def to(destination: tuple[str, int], *sizes: int, allocation: int | None = 1) -> list[Transmit]:
    return [Transmit(bytes(size), destination, allocation) for size in sizes]


def lengths(transmits: list[Transmit]) -> list[list[int]]:
    found = list(runs(transmits))
    assert [each for run in found for each in run] == transmits, "in order, and nothing is lost"
    return [[len(each.data) for each in run] for run in found]


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ((), []),
        ((10,), [[10]]),
        ((10, 10, 4), [[10, 10, 4]]),
        ((10, 10, 4, 10), [[10, 10, 4], [10]]),
        ((10, 4, 4), [[10, 4], [4]]),
        ((4, 10, 10), [[4], [10, 10]]),
        ((10, 0, 10), [[10], [0], [10]]),
        ((0, 0), [[0], [0]]),
        ((30_000, 30_000, 30_000), [[30_000, 30_000], [30_000]]),
    ],
)
def test_a_run_is_of_one_length_but_for_its_end(sizes: tuple[int, ...], expected: list[list[int]]) -> None:
    assert lengths(to(PEER, *sizes)) == expected


def test_a_run_is_what_one_call_takes() -> None:
    assert [len(run) for run in lengths(to(PEER, *[8] * 150))] == [MAX_SEGMENTS, MAX_SEGMENTS, 150 - 2 * MAX_SEGMENTS]


def test_a_run_goes_from_one_socket_to_one_place() -> None:
    elsewhere = [Transmit(bytes(8), PEER, None, Listener.OTHER_PORT)]
    assert lengths(to(PEER, 8) + to(OTHER, 8) + to(OTHER, 8, allocation=2)) == [[8], [8], [8]]
    assert lengths(to(PEER, 8, allocation=None) + elsewhere) == [[8], [8]]


class Refusing:
    """A socket whose kernel sends no trains, and not everything else."""

    def __init__(self, reason: int) -> None:
        self.reason = reason
        self.sent: list[bytes] = []

    def sendmsg(self, *_: object) -> int:
        raise OSError(self.reason, "no trains")

    def sendto(self, data: bytes, _destination: object) -> int:
        if data == b"bad":
            raise OSError(errno.ENETUNREACH, "unreachable")
        self.sent.append(data)
        return len(data)


@pytest.mark.parametrize("reason", [errno.EIO, errno.EINVAL, errno.EMSGSIZE])
def test_where_trains_are_refused_each_goes_by_itself_and_what_fails_is_told(reason: int) -> None:
    refusing, errors = Refusing(reason), list[OSError]()
    send_run(cast("socket.socket", refusing), [b"one", b"bad", b"two"], PEER, errors.append)
    assert refusing.sent == [b"one", b"two"]
    assert [error.errno for error in errors] == [errno.ENETUNREACH]


def test_a_full_buffer_is_told_for_each_and_not_tried_again() -> None:
    refusing, errors = Refusing(errno.EAGAIN), list[OSError]()
    send_run(cast("socket.socket", refusing), [b"one", b"two"], PEER, errors.append)
    assert refusing.sent == []
    assert [error.errno for error in errors] == [errno.EAGAIN, errno.EAGAIN]
