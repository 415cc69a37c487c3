"""Reading a UDP socket until it is empty, a whole datagram or train at a time, into one buffer.

There are two ways to do it, and both give the burst the same: datagram by datagram in Python, and all of them with one
call where the native kernel was built (`batch/_receive.h`). A call costs Python more than it costs the kernel.
"""

import socket
import sys
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple, TypeAlias

from ..batch.choice import choose
from ..batch.contract import Receive
from ..batch.lanes import Passed
from .agent import Address
from .ancillary import ANCILLARY_BYTES, EMPTY, Arrival, arrival_of, arrived
from .burst import MAX_DATAGRAM_BYTES, MAX_READS, Burst, give_all


class Brought(NamedTuple):
    """What a reading has brought."""

    datagrams: int
    """Calls that found something; a train counts as one."""
    data: bool
    """Whether any of it was neither STUN, nor a keepalive, nor a handshake."""
    more: bool
    """Whether the socket may not be empty: the buffer was full, or so many reads were made."""


Read: TypeAlias = Callable[[socket.socket, memoryview, Burst, Callable[[], object], bool], Brought]
"""Read from a socket into a buffer, for a burst. The function is called when the socket has an error to tell. With the
flag, a datagram that is no data is expected to be the only one; if it is not, the next wake-up comes at once."""


def read_each(
    sock: socket.socket, buffer: memoryview, burst: Burst, on_error: Callable[[], object], lonely: bool
) -> Brought:
    """Read one by one. STUN is answered at once, and what that brings about may close the socket."""
    at, seen, data = 0, 0, False
    before: list[tuple[int, int, bytes]] | None = None
    arrival = Arrival(None)
    for _ in range(MAX_READS):
        if at > len(buffer) - MAX_DATAGRAM_BYTES or sock.fileno() < 0:
            break
        try:
            size, ancillary, _, source = sock.recvmsg_into((buffer[at:],), ANCILLARY_BYTES)
        except (BlockingIOError, InterruptedError):
            return Brought(seen, data, more=False)
        except OSError:
            on_error()
            continue
        if ancillary != before:
            before, arrival = ancillary, arrival_of(tuple(ancillary))
        is_data = burst.take(buffer, at, size, arrival, (source[0], source[1]))
        at += size
        seen += 1
        data |= is_data
        if lonely and not is_data and at == size:
            return Brought(seen, data, more=False)
    return Brought(seen, data, more=True)


Passing: TypeAlias = Callable[[int, memoryview, int, int, bool], Passed]
"""As `Receive`. With the flag, nothing more is read behind a first datagram that is no data."""


def all_of(receive: Receive) -> Passing:
    """Return what has nothing go by."""

    def read(descriptor: int, buffer: memoryview, at: int, most: int, lonely: bool) -> Passed:
        at, reads, error, runs = receive(descriptor, buffer, at, 1 if lonely else most)
        return at, reads, error, runs, False, ()

    return read


def read_all(receive: Passing) -> Read:
    """Return what reads all with one call, and gives it away then: whoever raises costs the others nothing."""

    def read(
        sock: socket.socket, buffer: memoryview, burst: Burst, on_error: Callable[[], object], lonely: bool
    ) -> Brought:
        at, seen, data = 0, 0, False
        left = MAX_READS

        def take(run: tuple[bytes, bytes, bytes, bytes]) -> None:
            nonlocal data
            head, spans, place, name = run
            data |= burst.take_run(buffer, head, spans, arrived(place), source_of(name))

        while left > 0 and at <= len(buffer) - MAX_DATAGRAM_BYTES and sock.fileno() >= 0:
            at, reads, error, runs, passed, todo = receive(sock.fileno(), buffer, at, left, lonely and not seen)
            seen += reads
            data |= bool(passed)
            if todo:
                try:
                    give_all(list(todo), lambda call: call())
                except BaseException:
                    give_all(runs, take)
                    raise
            if not runs and (not error or error in EMPTY):  # all went by: as much as a turn may bring, or all there was
                return Brought(seen, data, more=not error and not (lonely and seen == 1))
            left -= reads
            if len(runs) == 1 and error in EMPTY:  # one peer's data, mostly
                head, spans, place, name = runs[0]
                given = burst.give_run(buffer, head, spans, arrived(place), source_of(name))
                if given is not None:
                    return Brought(seen, data or given, more=False)
            give_all(runs, take)
            if error in EMPTY or (lonely and seen == 1 and not data):
                return Brought(seen, data, more=False)
            if error:
                left -= 1
                on_error()
        return Brought(seen, data, more=True)

    return read


def reader() -> Read:
    """Return the way to read in this process."""
    receive = choose().receive
    return read_each if receive is None else read_all(all_of(receive))


@lru_cache(maxsize=8192)
def source_of(name: bytes) -> Address:
    """Return host and port of a source: its port, scope (in the host's byte order) and address."""
    port, packed = int.from_bytes(name[:2], "big"), name[6:]
    if len(packed) != 16:
        return socket.inet_ntop(socket.AF_INET, packed), port
    host, scope = socket.inet_ntop(socket.AF_INET6, packed), int.from_bytes(name[2:6], sys.byteorder)
    return (f"{host}%{_interface(scope)}" if scope else host), port


def _interface(index: int) -> str:
    try:
        return socket.if_indextoname(index)
    except OSError:  # it is gone: as getnameinfo(3) writes it then
        return str(index)
