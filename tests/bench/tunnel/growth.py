"""How cost grows: with the number of clients at one gateway, with the size of packets, with workers.

The gateway is the real program. The many clients are `busy`: real protocol machines without a device, in one process.
How much of a core it took, and how much the gateway, says which of the two was the limit.
"""

from __future__ import annotations

import contextlib
import functools
import json
import operator
import os
import select
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exeunt.clients.demo.stage import PORTAL_ADDRESS, PORTAL_PORT
from exeunt.clients.lab.topology import RESOURCE_ADDRESS
from exeunt.clients.portal import administration
from exeunt.clients.portal.store import Store

from . import busy, traffic
from .measures import Figures, spent_s
from .subjects import Exeunt, Subject
from .window import DATAGRAM_BYTES

SEGMENTS = (200, 500, 900, 1228)
"""Bytes of TCP payload a packet; the last is the most that fits into the tunnel's default MTU."""
PEERS = (1, 10, 100, 1000)
WORKERS = (1, 2)
ACTIVE = 100
WINDOW = 48
"""Datagrams that each of them has on its way; one alone has all of theirs."""
_ACTIVE_S = 3.0
_TURNS = 4
"""So often one alone and all of them take turns."""
_IDLE_S = 20.0
_COME_TO_REST_S = 20.0
"""Who has come has its path's MTU found out, and ten seconds later says that the last answer arrived (WireGuard's
keepalive); its checks that nobody answered are forgotten 16 s after the last. Only then is it idle."""
_ARRIVES_S, _ARRIVE_LIMIT_S = 0.3, 60.0
_SETTLE_S = 2.0


@dataclass
class Active:
    """What busy clients got, and what it cost."""

    each: list[int]
    """Datagrams that each got back while it was measured."""
    total: int
    """What all got back, the warm-up included; as are the rest."""
    lost: int
    gateway_s: float
    """Processor time."""
    crowd_s: float
    """Of the process that plays the clients."""
    seconds: float = _ACTIVE_S
    """While it was measured."""

    @property
    def mbit_s(self) -> float:
        """Of one way; as much goes the other."""
        return sum(self.each) * DATAGRAM_BYTES * 8 / 1e6 / self.seconds

    @property
    def spread_percent(self) -> float:
        """How far the furthest of them is from their median."""
        middle = statistics.median(self.each) or 1
        return max(max(self.each) - middle, middle - min(self.each)) / middle * 100

    def core_percent(self, spent: float) -> float:
        """How much of a core such a processor time is."""
        return spent / (self.seconds + busy.WARM_S * self.seconds / _ACTIVE_S) * 100

    def __add__(self, other: Active) -> Active:
        return Active(
            [one + another for one, another in zip(self.each, other.each, strict=True)],
            self.total + other.total,
            self.lost + other.lost,
            self.gateway_s + other.gateway_s,
            self.crowd_s + other.crowd_s,
            self.seconds + other.seconds,
        )


class Gathering:
    """A gateway and clients that come to it, besides the one that is there already."""

    def __init__(self, subject: Exeunt) -> None:
        self.subject = subject
        self.count = 0
        self._alone_kb = self._memory_kb()
        self._process: subprocess.Popen[str] = subject.client.popen(
            [sys.executable, "-m", busy.__name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path.cwd())},
        )
        self._echo = traffic.Program(subject.resource, "udp-echo", RESOURCE_ADDRESS, busy.ECHO_PORT)

    def grow(self, count: int) -> None:
        """Have clients come until there are so many. Raises TrafficFailed."""
        names = [f"guest-{number}" for number in range(self.count, count)]
        with contextlib.closing(Store(self.subject.stage.database)) as store:
            visitors = [(name, administration.add_client(store, name, now_unix=time.time()).token) for name in names]
        url = f"ws://{PORTAL_ADDRESS}:{PORTAL_PORT}/v1/client"
        limit_s = _ARRIVE_LIMIT_S + _ARRIVES_S * len(names)
        found = self._ask({"url": url, "visitors": visitors}, limit_s)
        self.count = found["connected"]
        time.sleep(_SETTLE_S)

    def active(self, count: int) -> Active:
        """Have so many of them send; the datagrams on their way are as many as those of `ACTIVE` clients."""
        before = spent_s(self.subject.processes("gateway"))
        order = {"busy": count, "datagrams": ACTIVE * WINDOW, "seconds": _ACTIVE_S}
        found = self._ask(order, _ACTIVE_S + _ARRIVE_LIMIT_S)
        spent = spent_s(self.subject.processes("gateway")) - before
        return Active(found["each"], found["total"], found["lost"], spent, found["cpu_s"])

    def idle(self) -> tuple[float, float]:
        """Watch the gateway while nothing happens: its memory for each client in kB, and % of a core."""
        time.sleep(_COME_TO_REST_S)
        before, began = spent_s(self.subject.processes("gateway")), time.monotonic()
        time.sleep(_IDLE_S)
        busy_s, took_s = spent_s(self.subject.processes("gateway")) - before, time.monotonic() - began
        return (self._memory_kb() - self._alone_kb) / self.count, busy_s / took_s * 100

    def close(self) -> None:
        """Have them go."""
        self._echo.end()
        self._process.kill()
        self._process.wait()
        self.subject.client.children.remove(self._process)
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()

    def _memory_kb(self) -> float:
        """What its processes have to themselves that is no file's (proc_pid_smaps_rollup(5))."""
        rollups = (Path(f"/proc/{one.pid}/smaps_rollup") for one in self.subject.processes("gateway"))
        lines = (line for each in rollups for line in each.read_text().splitlines())
        return sum(int(line.split()[1]) for line in lines if line.startswith("Anonymous:"))

    def _ask(self, order: dict[str, Any], limit_s: float) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        if not select.select([self._process.stdout], [], [], limit_s)[0]:
            raise traffic.TrafficFailed(f"the clients said nothing for {limit_s:g} s")
        line = self._process.stdout.readline()
        if not line:
            raise traffic.TrafficFailed("the clients have ended")
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextlib.contextmanager
def gathering(name: str, workers: int = 1) -> Generator[Gathering]:
    """A gateway with so many workers, its client, and nobody else yet."""
    with contextlib.ExitStack() as stack:
        subject = Exeunt(name, workers=workers)
        stack.callback(subject.close)
        place = Gathering(subject)
        stack.callback(place.close)
        yield place


def many(name: str) -> Iterator[Figures]:
    """What 100 active clients get, together and each, beside one that is alone."""
    with gathering(name) as place:
        place.grow(ACTIVE)
        turns = [(place.active(1), place.active(ACTIVE)) for _ in range(_TURNS)]
    one, all_ones = (functools.reduce(operator.add, found) for found in zip(*turns, strict=True))
    yield {
        "active_1_mbit_s": one.mbit_s,
        "active_1_gateway_core_percent": one.core_percent(one.gateway_s),
        "active_1_crowd_core_percent": one.core_percent(one.crowd_s),
        "active_100_total_ratio": sum(all_ones.each) / sum(one.each),
        "active_100_spread_percent": all_ones.spread_percent,
        "active_100_cpu_ratio": (all_ones.gateway_s / all_ones.total) / (one.gateway_s / one.total),
        "active_100_mbit_s": all_ones.mbit_s,
        "active_100_gateway_core_percent": all_ones.core_percent(all_ones.gateway_s),
        "active_100_crowd_core_percent": all_ones.core_percent(all_ones.crowd_s),
        "active_100_lost_percent": all_ones.lost / (all_ones.lost + all_ones.total) * 100,
    }


def peers(name: str, seconds: float, wants: Callable[[str], bool]) -> Iterator[Figures]:
    """What one busy client gets among so many, what that costs the gateway, and what they cost while all are idle.

    A figure takes its time only if it is wanted: a thousand come within a minute and a half.
    """
    with gathering(name) as place:
        for count in PEERS:
            idle, busy_ones = _idle_figures(count), _peers_figures(count)
            if count > 1 and any(map(wants, idle + busy_ones)):
                place.grow(count - 1)
            if any(map(wants, idle)):
                yield dict(zip(idle, place.idle(), strict=True))
            if any(map(wants, busy_ones)):
                yield dict(zip(busy_ones, _one_among_them(place.subject, seconds), strict=True))


def _one_among_them(subject: Exeunt, seconds: float) -> tuple[float, float]:
    """Return what one stream gets on average of both ways, in Mbit/s, and what it costs the gateway, in s/GB."""
    before, moved, rates = spent_s(subject.processes("gateway")), 0, list[float]()
    for down in (True, False):
        with traffic.Stream(subject.client, subject.resource, down=down, streams=1, seconds=seconds) as stream:
            found = stream.finish()
        rates.append(found.mbit_s)
        moved += found.total_bytes
    return statistics.mean(rates), (spent_s(subject.processes("gateway")) - before) / (moved / 1e9)


def _idle_figures(count: int) -> tuple[str, ...]:
    return (f"idle_{count}_kb", f"idle_{count}_core_percent") if count > 1 else ()


def _peers_figures(count: int) -> tuple[str, ...]:
    return f"peers_{count}_tcp1_mbit_s", f"peers_{count}_cpu_s_per_gb_gateway"


def workers(name: str) -> Iterator[Figures]:
    """What 100 active clients get of a gateway that spreads them over so many workers."""
    for count in WORKERS:
        with gathering(name, count) as place:
            place.grow(ACTIVE)
            yield {f"workers_{count}_active_100_mbit_s": place.active(ACTIVE).mbit_s}


def segments(subject: Subject, seconds: float) -> Iterator[Figures]:
    """What one stream gets, and what it costs, in packets of these sizes."""
    for size in SEGMENTS:
        before = spent_s([*subject.processes("client"), *subject.processes("gateway")])
        with traffic.Stream(
            subject.client, subject.resource, down=True, streams=1, seconds=seconds, segment=size
        ) as stream:
            found = stream.finish()
        spent = spent_s([*subject.processes("client"), *subject.processes("gateway")]) - before
        yield {
            f"segment_{size}_tcp1_mbit_s": found.mbit_s,
            f"segment_{size}_cpu_s_per_gb": spent / (found.total_bytes / 1e9),
        }


PRODUCED: dict[str, tuple[str, ...]] = {
    "active": (
        "active_1_mbit_s",
        "active_1_gateway_core_percent",
        "active_1_crowd_core_percent",
        "active_100_total_ratio",
        "active_100_spread_percent",
        "active_100_cpu_ratio",
        "active_100_mbit_s",
        "active_100_gateway_core_percent",
        "active_100_crowd_core_percent",
        "active_100_lost_percent",
    ),
    "peers": tuple(name for count in PEERS for name in (*_idle_figures(count), *_peers_figures(count))),
    "segments": tuple(
        name for size in SEGMENTS for name in (f"segment_{size}_tcp1_mbit_s", f"segment_{size}_cpu_s_per_gb")
    ),
    "workers": tuple(f"workers_{count}_active_100_mbit_s" for count in WORKERS),
}
"""The figures of each, in the order of the table."""
