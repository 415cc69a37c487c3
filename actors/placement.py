"""Which worker gets the next connection: the one that has the fewest. Pure.

A worker that has just died is left alone until its successor reports: those who lost their connections come again at
once, and would all be sent to where they are fewest, which is to nobody.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from .timing import TAKE_OVER_S


class Placement:
    """Chooses among workers by how many connections each has."""

    def __init__(self, workers: Sequence[str]) -> None:
        self._workers = workers
        self._away: dict[str, float] = {}
        """Workers that were lost, until when they are not waited for any longer: their report may be lost, too."""

    def lost(self, worker: str, now: float) -> None:
        """It has died, or is being replaced. `now` is in seconds."""
        self._away[worker] = now + TAKE_OVER_S

    def back(self, worker: str) -> None:
        """It is there, or there again."""
        self._away.pop(worker, None)

    def choose(self, taken: Iterable[str], now: float) -> str:
        """Return the worker for one more connection; `taken` names the worker of each that there is."""
        load = Counter(taken)
        there = [worker for worker in self._workers if self._away.get(worker, now) <= now]
        return min(there or self._workers, key=lambda worker: load[worker])
