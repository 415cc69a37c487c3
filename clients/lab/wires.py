"""Wires whose packets can be delayed and spoilt, and the process that they all run in.

A wire looks like any other device on both sides. Its descriptors belong to the process alone, so the devices are
gone when it is, however it ends.
"""

import dataclasses
import json
import os
import subprocess
import sys
from typing import Any

from exeunt.actors.device.tun import open_tun

from .errors import LabError
from .impairment import Impairment
from .namespace import Namespace


class Wires:
    """The impaired wires of one laboratory. `lay` all of them, then `start`."""

    def __init__(self) -> None:
        self._ends: list[tuple[int, int]] = []
        self._process: subprocess.Popen[Any] | None = None

    def lay(self, one: Namespace, device: str, other: Namespace, peer: str, *, mtu: int) -> int:
        """Make a wire and return its number: ``device`` in ``one``, ``peer`` in ``other``, down and without address.

        Raises:
            DeviceError: there is no TUN driver, or it may not be used.
        """
        near = one.run(lambda: open_tun(device, mtu=mtu))
        try:
            far = other.run(lambda: open_tun(peer, mtu=mtu))
        except BaseException:
            os.close(near)
            raise
        self._ends.append((near, far))
        return len(self._ends) - 1

    def start(self, place: Namespace) -> None:
        """Start the process, as a child of this namespace. From then on packets travel."""
        descriptors = [fd for ends in self._ends for fd in ends]
        arguments = [f"{one}:{other}" for one, other in self._ends]
        self._process = place.popen(
            [sys.executable, "-m", "exeunt.clients.lab.delay_line", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=descriptors,
        )
        self._let_go()

    def impair(self, wire: int, impairment: Impairment) -> None:
        """Set what the wire does from now on to packets that enter it.

        Raises:
            LabError: the wires are not there any more.
        """
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            raise LabError("the wires are not laid yet, or closed")
        order = {"wire": wire, **dataclasses.asdict(impairment)}
        try:
            process.stdin.write(json.dumps(order).encode() + b"\n")
            process.stdin.flush()
        except BrokenPipeError:
            pass  # the answer's absence says the same
        if process.stdout.readline() != b"ok\n":
            raise LabError("the process of the wires has ended")

    def close(self) -> None:
        """Let go of everything; the process itself ends with its namespace. Idempotent."""
        self._let_go()
        process, self._process = self._process, None
        if process is not None and process.stdin is not None and process.stdout is not None:
            process.stdin.close()
            process.stdout.close()

    def _let_go(self) -> None:
        ends, self._ends = self._ends, []
        for fd in (fd for pair in ends for fd in pair):
            os.close(fd)
