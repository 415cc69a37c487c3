"""The runtime beside its peers, in one run: rounds interleaved, medians and ranges, every subject in its own process.

Subjects that cost nothing while idle live through all rounds, and take turns at each measurement: what disturbs the
machine for a second disturbs all of them. Those that keep a processor busy (Ray does, with nothing to do) are started
in each round, measured, and ended. The table begins with how busy and how fast the machine was (`machine`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .machine import Machine
from .peer import Peer, PeerFailed
from .report import Figure, Report

LOGS = Path("build/bench/log")


@dataclass(frozen=True)
class Subject:
    """Who is measured: its name in the table, and the module that is its process."""

    name: str
    module: str
    argument: str = ""

    @property
    def arguments(self) -> tuple[str, ...]:
        return (self.argument,) if self.argument else ()


IDLE_ONES = (
    Subject("pyzmq", "peers.pyzmq", "watched"),
    Subject("exeunt", "cases.far"),
    Subject("pyzmq-blocking", "peers.pyzmq", "blocking"),
    Subject("pyzmq-pushpull", "peers.pyzmq", "pushpull"),
    Subject("exeunt", "cases.near"),
    Subject("pykka", "peers.pykka"),
    Subject("exeunt", "cases.trace"),
)
"""They live through all rounds."""

BUSY_ONES = (
    Subject("erlang", "peers.erlang"),
    Subject("xoscar", "peers.xoscar"),
    Subject("thespian", "peers.thespian"),
    Subject("ray", "peers.ray"),
    Subject("exeunt", "cases.life"),
    Subject("exeunt", "cases.crowd"),
    Subject("exeunt", "cases.idle"),
)
"""They are started in each round."""

_FAR = (*["ask"] * 6, "asks", "tells", "async_ask", "async_asks", "async_tells", "local_ask", "local_async_ask")
PLAN = (*_FAR, "local_asks", "local_tells", "local_async_tells", "record", "trace", "crowd")

UNITS = {"us": "us", "ms": "ms", "mb": "MB", "percent": "%", "bytes": "B", "s": "1/s"}
"""By the last part of a figure's name."""


class Run:
    """What was found so far."""

    def __init__(self, rounds: int, only: Sequence[str], patience_s: float) -> None:
        self._machine = Machine(patience_s)
        self.left_out: dict[str, str] = {}
        self._rounds = rounds
        self._only = only
        self._values: dict[tuple[str, str], list[float]] = {}

    def go(self) -> None:
        """Measure everything."""
        LOGS.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            opened = [(subject, self._open(subject, stack)) for subject in self._wanted(IDLE_ONES)]
            idle = [(subject, peer) for subject, peer in opened if peer is not None]
            for number in range(self._rounds):
                print(f"round {number + 1} of {self._rounds} …", flush=True)
                self._machine.await_quiet()
                self._machine.calibrate()
                self._take_turns(idle)
                for subject in self._wanted(BUSY_ONES):
                    self._once(subject)

    def figures(self) -> Iterator[Figure]:
        """Return what was measured, figure by figure."""
        for name, values in self._machine.values.items():
            yield Figure(name, "machine", values, UNITS[name.rsplit("_", 1)[-1]])
        for subject, name in sorted(self._values, key=lambda key: self._order(key[1])):
            yield Figure(name, subject, self._values[subject, name], UNITS[name.rsplit("_", 1)[-1]])

    def _order(self, name: str) -> int:
        return [found for _, found in self._values].index(name)

    def _wanted(self, subjects: Sequence[Subject]) -> list[Subject]:
        return [
            subject
            for subject in subjects
            if (not self._only or {subject.name, subject.module} & set(self._only))
            and subject.name not in self.left_out
        ]

    def _open(self, subject: Subject, stack: contextlib.ExitStack) -> Peer | None:
        log_file = LOGS / f"{subject.module}{subject.argument}.log"
        try:
            peer = Peer(subject.module, *subject.arguments, log_file=log_file)
        except PeerFailed as failure:
            self._fail(subject, failure)
            return None
        stack.callback(peer.end)
        return peer

    def _take_turns(self, idle: list[tuple[Subject, Peer]]) -> None:
        for measure in PLAN:
            for subject, peer in idle:
                if measure in peer.measures:
                    self._measure(subject, peer, measure)

    def _once(self, subject: Subject) -> None:
        with contextlib.ExitStack() as stack:
            if peer := self._open(subject, stack):
                for measure in peer.measures:
                    self._measure(subject, peer, measure)

    def _measure(self, subject: Subject, peer: Peer, measure: str) -> None:
        self._machine.await_quiet()
        try:
            found = peer.measure(measure)
        except PeerFailed as failure:
            self._fail(subject, failure)
            return
        for name, value in found.items():
            self._values.setdefault((subject.name, name), []).append(value)

    def _fail(self, subject: Subject, failure: PeerFailed) -> None:
        if subject.name == "exeunt":
            raise failure  # ours is not left out
        self.left_out[subject.name] = str(failure)


def run(rounds: int, only: Sequence[str], patience_s: float) -> tuple[Report, dict[str, str]]:
    """Measure; return the report, and who was left out because of what."""
    measured = Run(rounds, only, patience_s)
    measured.go()
    return Report("runtime", list(measured.figures())), measured.left_out
