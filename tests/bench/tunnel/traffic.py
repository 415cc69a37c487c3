"""Traffic through a subject's tunnel: the programs of `flow` at both ends, and what they measured."""

from __future__ import annotations

import json
import select
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from exeunt.clients.lab import Namespace
from exeunt.clients.lab.topology import RESOURCE_ADDRESS

FLOW = Path(__file__).with_name("flow.py")
TCP_PORT, UDP_PORT = 5201, 5202
DATAGRAM_BYTES = 1200
WARM_S = 0.4
_ANSWER_S = 30.0
_LOSS_MAX = 0.005
_TRIAL_S = 0.4
_SETTLE_S = 0.15
"""What is on its way gets so long to arrive."""
_FIRST_RATE, _LAST_RATE = 4_000.0, 400_000.0
_STEPS = 4
"""Halvings of the gap between the last rate that went well and the first that did not."""


class TrafficFailed(Exception):
    """A program at one end of the tunnel did not do its part; the message says which."""


class Program:
    """One of them, in its place, counted on from now."""

    def __init__(self, place: Namespace, *arguments: object, inherits: tuple[int, ...] = ()) -> None:
        """`inherits` are descriptors that it gets under the same numbers. Raises TrafficFailed."""
        self.what = f"{arguments[0]} in {place.name}"
        self._process: subprocess.Popen[str] = place.popen(
            [sys.executable, "-ISE", FLOW, *(str(each) for each in arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            pass_fds=inherits,
        )
        self._place = place
        try:
            self.hear()
        except BaseException:
            self.end()
            raise

    def ask(self, line: str) -> Any:
        """Tell it something, and return what it answers."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self.hear()

    def hear(self, timeout_s: float = _ANSWER_S) -> Any:
        """Return its next line. Raises TrafficFailed."""
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], timeout_s)[0]:
            raise TrafficFailed(f"{self.what} said nothing for {timeout_s:g} s")
        line = self._process.stdout.readline()
        if not line:
            raise TrafficFailed(f"{self.what} has ended")
        return json.loads(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        self._place.children.remove(self._process)


@dataclass(frozen=True)
class Moved:
    """What TCP brought to the side that received."""

    mbit_s: float
    """While it was measured, after the warm-up."""
    total_bytes: int
    """From the first byte to the last."""
    each_bytes: list[int] = field(default_factory=list[int])
    """Of each stream, while it was measured."""


class Stream:
    """TCP under way. A context manager; `finish` waits for the figures."""

    def __init__(
        self, client: Namespace, resource: Namespace, *, down: bool, streams: int, seconds: float, segment: int = 0
    ) -> None:
        """Start it, from the resource to the client or up, in segments of so many bytes (0: as large as they may be).

        Raises TrafficFailed.
        """
        there, here = ("source", "sink") if down else ("sink", "source")
        times = (streams, segment, WARM_S, seconds)
        self._seconds = seconds
        self._programs: list[Program] = []
        try:
            self._programs.append(Program(resource, "tcp", "listen", RESOURCE_ADDRESS, TCP_PORT, there, *times))
            self._programs.append(Program(client, "tcp", "connect", RESOURCE_ADDRESS, TCP_PORT, here, *times))
        except BaseException:
            self.close()
            raise
        self._sink = self._programs[1 if down else 0]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def finish(self) -> Moved:
        """Wait until it has been measured. Raises TrafficFailed."""
        found = self._sink.hear(self._seconds + WARM_S + _ANSWER_S)
        return Moved(found["bytes"] * 8 / 1e6 / found["seconds"], found["total"], found["each"])

    def close(self) -> None:
        """End it."""
        for program in reversed(self._programs):
            program.end()


def trips_ms(client: Namespace, count: int, interval_s: float) -> list[float]:
    """Ping the resource; return the round trips of those that were answered. Raises TrafficFailed if none was."""
    with Program(client, "ping", RESOURCE_ADDRESS, count, interval_s) as pinging:
        found: list[float] = pinging.hear(count * interval_s + _ANSWER_S)["ms"]
    if not found:
        raise TrafficFailed("no ping was answered")
    return found


def loss_free_per_s(client: Namespace, resource: Namespace, size: int = DATAGRAM_BYTES) -> float:
    """Return how many datagrams a second of this size arrive at the highest rate that loses less than 0.5 %.

    The rate is doubled until too many are lost, and then found by bisection; each rate gets a second try, for a
    machine that was busy with something else. Raises TrafficFailed.
    """
    with (
        Program(resource, "udp-sink", RESOURCE_ADDRESS, UDP_PORT) as sink,
        Program(client, "udp-source", RESOURCE_ADDRESS, UDP_PORT, size) as source,
    ):
        return loss_free_between(sink, source, _TRIAL_S)


def loss_free_between(sink: Program, source: Program, seconds: float, first: float = _FIRST_RATE) -> float:
    """The same between two programs, each rate tried for so many seconds, this one first."""

    def arriving(rate: float) -> float | None:
        for _ in range(2):
            sink.ask("")
            sent = source.ask(f"{rate} {seconds}")
            time.sleep(_SETTLE_S)
            received: int = sink.ask("")["received"]
            if received >= sent["sent"] * (1 - _LOSS_MAX):
                return received / float(sent["seconds"])
        return None

    return highest(arriving, first)


def highest(arriving: Callable[[float], float | None], first: float = _FIRST_RATE) -> float:
    """Return what arrives at the highest rate that goes well.

    `arriving` tries a rate, and returns how much arrived; None when too much was lost.
    """
    best, rate = 0.0, first
    while rate < _LAST_RATE and (got := arriving(rate)) is not None:
        if got < rate * 0.8:
            return max(best, got)  # the sender gives no more
        best, rate = got, rate * 2
    good, bad = (rate / 2 if best else 0.0), rate
    for _ in range(_STEPS):
        middle = (good + bad) / 2
        got = arriving(middle)
        good, bad = (middle, bad) if got is not None else (good, middle)
        best = max(best, got or 0.0)
    return best
