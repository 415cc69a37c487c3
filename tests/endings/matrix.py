"""Playing many cells side by side: lanes, each with a house of its own, share the processor by turns.

Some rows wait for a quarter of a minute, or a whole one: they come first, on many lanes, since waiting costs nothing.
Most need the processor for a second and are timed in milliseconds; when only they are left, most lanes go, because even
a stage that stands idle takes its part.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from . import coturn
from .expected import ROWS, Side, Variant
from .house import House, Needs
from .performance import Outcome, end_client, perform
from .processor import Processor
from .rows import PLAYED

ATTEMPTS: Final = 2
"""A run that did not come to its event (a stage that would not stand) is played once more."""
_RUNS_A_TURN: Final = 5
_LANES_A_SHARE: Final = 2
"""After its event a run looks for leftovers for a second or two, without the processor: somebody else can have it."""


@dataclass(frozen=True)
class Turn:
    """Some runs of one cell, played one after another in one house."""

    row: str
    variant: Variant
    runs: int

    @property
    def needs(self) -> Needs:
        """What the house must be like."""
        return replace(PLAYED[self.row].needs, tls=self.variant is Variant.TLS)


def turns(cells: Iterable[tuple[str, Variant]], runs: int) -> list[Turn]:
    """Cut the work into turns: those that wait first, then by what they need of a house."""
    cut: list[Turn] = []
    for row, variant in cells:
        size = 1 if PLAYED[row].waits else _RUNS_A_TURN
        cut += [Turn(row, variant, min(size, runs - done)) for done in range(0, runs, size)]

    def order(turn: Turn) -> tuple[bool, bool, int, float]:
        needs = turn.needs
        return not PLAYED[turn.row].waits, needs.tls, needs.gateways, needs.lifetime_s or 0

    return sorted(cut, key=order)


class Matrix:
    """Plays turns. `on_outcome` is told each run's, on the lane's thread, one at a time."""

    def __init__(
        self,
        work: Iterable[Turn],
        on_outcome: Callable[[Outcome], None],
        *,
        lanes: int,
        busy: int | None = None,
        keep: Path | None = None,
    ) -> None:
        """`lanes`: how many houses stand at once; `busy`: how many of them may use the processor (None: one for each
        processor); `keep`: where to copy the programs' files after a run that went wrong.
        """
        self._keep = keep
        self._work = deque(work)
        self._on_outcome = on_outcome
        self._lanes = lanes
        shares = busy or os.cpu_count() or 1
        self._processor = Processor(shares)
        self._lively_lanes = min(lanes, shares * _LANES_A_SHARE)
        self._lock = threading.Lock()
        self._houses: set[House] = set()
        self._is_abandoned = False

    def play(self) -> None:
        """Play everything; returns when it has been played."""
        lanes = [
            threading.Thread(target=self._lane, args=(number,), name=f"lane-{number}", daemon=True)
            for number in range(self._lanes)
        ]
        for lane in lanes:
            lane.start()
        for lane in lanes:
            lane.join()

    def stop(self) -> None:
        """Begin nothing more."""
        with self._lock:
            self._work.clear()

    def abandon(self) -> None:
        """End everything that was begun, wherever it is: processes that stand still, too. The lanes go no further."""
        with self._lock:
            self._is_abandoned = True
            self._work.clear()
            houses = list(self._houses)
        closing = [threading.Thread(target=_give_up, args=(house,)) for house in houses]
        for one in closing:
            one.start()
        for one in closing:
            one.join()

    def _lane(self, number: int) -> None:
        house: House | None = None
        only_waits = number >= self._lively_lanes
        while (turn := self._next(house.needs if house is not None else None, only_waits=only_waits)) is not None:
            for _ in range(turn.runs):
                house, outcome = self._run(house, turn)
                with self._lock:
                    self._on_outcome(outcome)
        if house is not None:
            self._close(house)

    def _next(self, standing: Needs | None, *, only_waits: bool) -> Turn | None:
        """Take the next turn; among those of its kind, one for the house that stands already."""
        with self._lock:
            if not self._work or (only_waits and not PLAYED[self._work[0].row].waits):
                return None
            first = self._work[0]
            waits = PLAYED[first.row].waits
            for turn in self._work:
                if turn.needs == standing and PLAYED[turn.row].waits == waits:
                    first = turn
                    break
            self._work.remove(first)
            return first

    def _run(self, house: House | None, turn: Turn) -> tuple[House | None, Outcome]:
        outcome = Outcome(turn.row, turn.variant)
        if turn.needs.tls and not coturn.is_installed():
            outcome.skipped = "coturn is not installed"
            return house, outcome
        for _ in range(ATTEMPTS):
            try:
                if house is None or house.needs != turn.needs:
                    house = self._another(house, turn.needs)
                outcome = perform(house, turn.row, turn.variant, self._processor)
                self._keep_files(house, outcome)
                if outcome.complaints or outcome.leftovers:  # what is wrong now must not be the next run's
                    self._close(house)
                    house = None
            except Exception as error:  # noqa: BLE001 - whatever it was, it is this run's result
                outcome.complaints = [f"not played: {error!r}"]
                outcome.trace = traceback.format_exc()
                if house is not None:
                    self._close(house)
                    house = None
            else:
                break
        return house, outcome

    def _keep_files(self, house: House, outcome: Outcome) -> None:
        wrong = outcome.complaints or outcome.leftovers or not all(outcome.is_right(side) for side in Side)
        if self._keep is not None and wrong and not outcome.skipped:
            name = f"{outcome.row} {outcome.variant} {time.time():.0f}".replace(" ", "-")
            shutil.copytree(house.home, self._keep / name, ignore=_no_file)

    def _another(self, house: House | None, needs: Needs) -> House:
        if house is not None:
            self._close(house)
        with self._processor.share():
            house = House(needs)
            with self._lock:
                self._houses.add(house)
            try:
                house.open()
            except BaseException:
                self._close(house)
                raise
            return house

    def _close(self, house: House) -> None:
        """Take a house down, with its client; where that is done by somebody else, end the lane."""
        with self._lock:
            if self._is_abandoned:
                sys.exit()
            self._houses.discard(house)
        end_client(house)
        house.close()


def _give_up(house: House) -> None:
    with contextlib.suppress(Exception):
        end_client(house)
        house.close()


def _no_file(directory: str, names: list[str]) -> list[str]:
    """Name what cannot be copied: sockets and pipes."""
    return [name for name in names if Path(directory, name).is_socket() or Path(directory, name).is_fifo()]


def all_rows() -> list[str]:
    """Every row's name, in order."""
    return list(ROWS)


def verdict(outcome: Outcome) -> str:
    """One line about a run."""
    if outcome.skipped:
        return f"{outcome.row} · {outcome.variant} · skipped: {outcome.skipped}"
    parts = [f"{outcome.row} · {outcome.variant}"]
    for side in Side:
        record = outcome.records.get(side)
        if record is None:
            continue
        took = "" if record.detection_ms is None else f" {record.detection_ms:,.1f} ms"
        mark = "" if outcome.is_right(side) and outcome.is_timely(side) else f" ✗ {record.evidence}"
        parts.append(f"{side} {record.cause}{took}{mark}")
    return " · ".join([*parts, *outcome.complaints, *(f"left: {one}" for one in outcome.leftovers)])
