"""Where things are drawn on a timeline: a process for each worker, and in it a track or more for each actor.

Viewers draw what overlaps on one track as nested, and drop what overlaps only in part. An actor handles one message
at a time, but its records may still overlap: a clock was stepped between them, a handler never ended, two lives of an
actor share an address. So an actor has as many tracks as its slices need: each slice goes to the first track on which
it nests inside, or lies beside, every other.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

OUTSIDE = "outside"


class Interval(NamedTuple):
    """What a slice occupies of its actor's track."""

    actor: str
    begin_ns: int
    end_ns: int
    key: int
    """Whose slice it is."""


class Track(NamedTuple):
    """One line of the timeline."""

    process: int
    thread: int


class Tracks:
    """Numbers for processes and tracks, from 1, in order of first appearance, and the slices' places on them."""

    def __init__(self) -> None:
        self._processes: dict[str, int] = {}
        self._threads: dict[tuple[str, int], int] = {}
        self._places: dict[int, Track] = {}

    def lay_out(self, intervals: Iterable[Interval]) -> None:
        """Give each slice its place. Call it once."""
        open_: dict[str, list[list[int]]] = {}
        # A parent before its children: earlier first, and of two that begin together the longer.
        for interval in sorted(intervals, key=lambda one: (one.begin_ns, -one.end_ns, one.key)):
            lanes = open_.setdefault(interval.actor, [])
            lane = next((number for number, ends in enumerate(lanes) if _fits(ends, interval)), len(lanes))
            if lane == len(lanes):
                lanes.append([])
            lanes[lane].append(interval.end_ns)
            self._places[interval.key] = self._track(interval.actor, lane)

    def place(self, key: int) -> Track | None:
        """Where this slice is; None if it was not laid out."""
        return self._places.get(key)

    def of_actor(self, actor: str) -> Track:
        """The actor's first track."""
        return self._track(actor, 0)

    @property
    def processes(self) -> list[tuple[str, int]]:
        """Each worker, `node/worker`, and its number."""
        return list(self._processes.items())

    @property
    def threads(self) -> list[tuple[str, Track]]:
        """Each track's name and numbers."""
        return [
            (f"{_name(actor)} ({lane + 1})" if lane else _name(actor), Track(self._processes[_process(actor)], thread))
            for (actor, lane), thread in self._threads.items()
        ]

    def _track(self, actor: str, lane: int) -> Track:
        process = self._processes.setdefault(_process(actor), len(self._processes) + 1)
        thread = self._threads.setdefault((actor, lane), len(self._threads) + 1)
        return Track(process, thread)


def _fits(ends: list[int], interval: Interval) -> bool:
    # The ends of the slices that are open where this one begins, the innermost last.
    while ends and ends[-1] <= interval.begin_ns:
        ends.pop()
    return not ends or interval.end_ns <= ends[-1]


def _process(actor: str) -> str:
    return actor.rpartition("/")[0] or OUTSIDE


def _name(actor: str) -> str:
    return actor.rpartition("/")[2] or OUTSIDE
