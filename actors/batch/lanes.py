"""Lanes: ordinary packets of sessions that are up go from a socket to the device and back in one call for a wake-up.

What costs a packet most, once it is sealed and opened in C, is the Python around it: ten to fifteen calls for each
burst, and after a sleep, when the caches are others', a hundred microseconds for a single packet. For most packets none
of it decides anything. So where there is a native kernel a session gets a *lane*: the keys, the replay window, the
counter, the path in use, and until when all of that holds. What is ordinary goes by it, and is *noted in its books*;
Python reads those a moment later, once for all.

Not ordinary, and left to Python as it was found, is whatever comes from or is for anywhere else than the lane says,
with a mark of congestion that changes something, has a control packet or a SYN in it, or is refused by the kernel. What
comes behind it for the same peer is left, too: nothing overtakes.

A lane's owner closes it before anything that it says is no longer so.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias, TypedDict

from .answers import Answers
from .contract import Opening, Sealing


class Books(NamedTuple):
    """What went by a lane since its books were read last. Times are the monotonic clock's, in seconds; 0: never."""

    datagrams: int
    """As in `Opened`, as are those that follow."""
    octets: int
    keepalives: int
    replayed: int
    forged: int
    malformed: int
    over_limit: int
    received_before_at: float
    """The last time but one that anything authentic came."""
    received_at: float
    """The last time."""
    delivered_at: float
    """The last time that the device was given a frame: neither keepalives nor control packets are any."""
    owed_at: float
    """The first time that data came since anything went."""
    sent: int
    """Datagrams."""
    sent_octets: int
    """Of them, with headers and tags."""
    sent_at: float
    """The last time."""
    unanswered_at: float
    """The first time that data went since anything came."""


class LaneKeys(TypedDict):
    """What a lane has of a session; see `Lanes.open`."""

    sealing: Sealing
    opening: Opening
    counter: array[int]
    local_index: int
    expires_at: float
    seal_before: int
    reject_after: int
    mtu: int


class Lane(Protocol):
    """One session's."""

    is_noted: bool
    """Whether there is something new in its books."""

    def books(self) -> tuple[Any, ...]:
        """Return what `Books` says, and begin anew."""
        ...


Rest: TypeAlias = "tuple[Any, list[tuple[int, int, int]], int]"
"""Of a burst that was opened, but not all given to the device: the owner, its frames as in `Opened`, and the outer
congestion mark."""
Unsent: TypeAlias = tuple[Any, int, int, int, int, int]
"""A train that was sealed, but not sent: the owner, from where to where it lies, its stride and mark, and the errno."""
Received: TypeAlias = "tuple[int, int, int, list[tuple[bytes, bytes, bytes, bytes]], int, Rest | None, list[Any]]"
"""What of `contract.Received` is left; whether anything that went by was no keepalive; the rest of a burst; and the
owners of lanes with something new in their books."""

Passed: TypeAlias = tuple[int, int, int, list[tuple[bytes, bytes, bytes, bytes]], int, Sequence[Callable[[], object]]]
"""What readers of a socket are told: of that the first five, and what they are to call before they look at the runs."""


class Lanes(Answers, Protocol):
    """A worker's. All calls come from one thread."""

    receive: Callable[[int, memoryview, int, int, bool, memoryview], Received]
    """Read as `contract.Receive` does; what is answered (`answers`) counts as a reading, and that is all. With the
    flag, nothing more is read behind a first datagram that is nobody's. In the last buffer, which has room for the
    other and `OUT_BYTES_EACH` for 1,024 datagrams, bursts are opened.
    """

    def open(
        self,
        *,
        owner: object,
        sealing: Sealing,
        opening: Opening,
        counter: array[int],
        local_index: int,
        descriptor: int,
        remote: bytes,
        local: bytes,
        expires_at: float,
        seal_before: int,
        reject_after: int,
        mtu: int,
        limit: int,
    ) -> Lane:
        """Begin with a session. It seals under the counter in the array ('Q', of one), which moves on, and which others
        may use between calls. It sends with a socket's descriptor from a local address (4 or 16 bytes) to a remote one
        (port, scope and address, as in `Received`), and takes what comes the other way. `limit` are the bytes beyond
        which a packet may be too long for the path; 0: none is.

        Raises:
            ValueError: the index has a lane already, or the addresses make no sense.
        """
        ...

    def close(self, lane: Lane, /) -> None:
        """Nothing goes by it any more. Idempotent."""
        ...

    def know(self, address: bytes, lane: Lane, /) -> None:
        """An inner address is this lane's peer's. Of many it is forgotten; then Python is asked again."""
        ...

    def forget(self) -> None:
        """Know no inner address any more."""
        ...

    def set_device(self, descriptor: int, header: int, merges: bool, sources: tuple[bytes, ...], /) -> None:
        """Read from and write to this device (-1: none), with no headers of its own where `header` is their size. Only
        what comes from these addresses is ordinary, at most eight; none: whatever comes.
        """
        ...

    def send(
        self, buffer: memoryview, most: int, train: memoryview, /
    ) -> tuple[bytes, int, int, list[Unsent], list[Any]]:
        """Read from the device as `ReadFrames` does; return the spans of what is left, how many were read, the `errno`,
        trains in `train` that were not sent, and the owners of lanes with something new in their books.
        """
        ...
