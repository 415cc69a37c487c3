"""The process that is the laboratory's wires: pairs of TUN devices, and between them time.

Kernels without sch_netem have no delay to offer, so the packets of an impaired wire come up into this process, which
lets each out at the other end when it is due. Its arguments are the wires' descriptors (``5:6 7:8``). On stdin it takes
one JSON object a line: ``wire``, the wire's position among the arguments, and the fields of an `Impairment` for it; it
answers ``ok``. It ends with its stdin.

The kernel wakes a sleeper up to a millisecond late, and that is how exact a delay is.
"""

import json
import os
import random
import select
import sys
import time
from typing import Any, NamedTuple

from .impairment import Direction, Impairment

PACKETS_PER_WAKE = 64
PACKET_BYTES_MAX = 65_536


class _Port(NamedTuple):
    """One end of a wire: what is read here travels in `outgoing` and is written at `far_end`."""

    fd: int
    far_end: int
    outgoing: Direction


class DelayLine:
    """Moves packets over its wires until stdin ends. Each wire is the descriptors of its two TUN devices."""

    def __init__(self, wires: list[tuple[int, int]]) -> None:
        rng = random.Random()  # noqa: S311
        self._wires = [
            (_Port(one, other, Direction(Impairment(), rng)), _Port(other, one, Direction(Impairment(), rng)))
            for one, other in wires
        ]
        self._ports = {port.fd: port for wire in self._wires for port in wire}
        self._poll = select.epoll()
        self._orders = sys.stdin.fileno()
        for fd in (*self._ports, self._orders):
            self._poll.register(fd, select.EPOLLIN)

    def run(self) -> None:
        """Work until there is nobody to give orders any more."""
        while True:
            due = [at for port in self._ports.values() if (at := port.outgoing.next_at()) is not None]
            wait_s = max(0.0, min(due) - time.monotonic()) if due else None
            for fd, _ in self._poll.poll(wait_s):
                if fd != self._orders:
                    self._read(self._ports[fd])
                elif not self._obey():
                    return
            self._write()

    def _read(self, port: _Port) -> None:
        for _ in range(PACKETS_PER_WAKE):
            try:
                packet = os.read(port.fd, PACKET_BYTES_MAX)
            except BlockingIOError:
                return
            except OSError:  # the device was switched off meanwhile
                return
            port.outgoing.take(packet, time.monotonic())

    def _write(self) -> None:
        now = time.monotonic()
        for port in self._ports.values():
            for packet in port.outgoing.arrived(now):
                try:
                    os.write(port.far_end, packet)
                except OSError:  # switched off, or its queue is full: a wire has nobody to tell
                    continue

    def _obey(self) -> bool:
        order = sys.stdin.buffer.readline()
        if not order:
            return False
        values: dict[str, Any] = json.loads(order)
        wire: int = values.pop("wire")
        for port in self._wires[wire]:
            port.outgoing.impairment = Impairment(**values)
        sys.stdout.write("ok\n")
        sys.stdout.flush()
        return True


def main() -> None:
    """Be the wires that the arguments name."""
    pairs = [argument.split(":") for argument in sys.argv[1:]]
    DelayLine([(int(one), int(other)) for one, other in pairs]).run()


if __name__ == "__main__":
    main()
