"""Several datagrams with one call: those that go from one socket to one place, equal but for the last (udp(7)).

A relay passes on what comes in a row, so most of what it sends is of this kind. Where the kernel refuses a train
(its device does no checksums, a datagram would have to be fragmented), each datagram goes by itself, as all did before.
"""

import socket
from collections.abc import Callable, Iterable, Iterator

from exeunt.actors.ice.ancillary import segmented
from exeunt.actors.ice.trains import MAX_SEGMENTS, MAX_TRAIN_BYTES
from exeunt.actors.turn import Transmit

from .relay_sockets import Address


def runs(transmits: Iterable[Transmit]) -> Iterator[list[Transmit]]:
    """Cut what is to be sent into runs that may go as one, in order."""
    run: list[Transmit] = []
    longest = total = 0
    for transmit in transmits:
        size = len(transmit.data)
        if run:
            first, last = run[0], run[-1]
            goes_on = (
                transmit.destination == first.destination
                and transmit.allocation == first.allocation
                and transmit.listener is first.listener
                and 0 < size <= longest == len(last.data)
                and len(run) < MAX_SEGMENTS
                and total + size <= MAX_TRAIN_BYTES
            )
            if not goes_on:
                yield run
                run = []
        if not run:
            longest, total = size, 0
        run.append(transmit)
        total += size
    if run:
        yield run


def send_run(
    through: socket.socket, run: list[bytes], destination: Address, on_error: Callable[[OSError], object]
) -> None:
    """Send datagrams, equal but for a shorter one at the end; tell of each that was not sent."""
    if len(run) > 1:
        try:
            through.sendmsg(run, (segmented(len(run[0])),), 0, destination)
        except BlockingIOError as error:
            for _ in run:
                on_error(error)
            return
        except OSError:
            pass  # whatever it is, it is found out and told for each
        else:
            return
    for data in run:
        try:
            through.sendto(data, destination)
        except OSError as error:  # also BlockingIOError: the socket's buffer is full, the datagram lost
            on_error(error)
