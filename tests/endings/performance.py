"""One run of one row: a client connects, the event happens, both records are read, what is left is looked for."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from dataclasses import dataclass, field
from typing import Final

import psutil

from exeunt.actors.endings import Ending
from exeunt.runtime.control import ControlError, ControlUnavailable

from . import leftovers
from .clock import unix
from .expected import NONE, ROWS, Limit, Row, Side, Variant
from .house import House, Link
from .injection import CannotBeDone
from .processor import Processor
from .rows import PLAYED, Played
from .trickle import CAREFUL, STEADY, Trickle

_SLACK_S: Final = 5.0
"""A record that is late is worth more than one that is missing."""
_RECOVERS_S: Final = 60.0
_LEAVE_S: Final = 8.0


@dataclass(frozen=True)
class Record:
    """What one side has written down of a run's connection."""

    cause: str = NONE
    initiated_by: str | None = None
    acknowledged: bool | None = None
    detection_ms: float | None = None
    """From the event to the ending."""
    evidence: str = ""


@dataclass
class Outcome:
    """What a run has shown."""

    row: str
    variant: Variant
    records: dict[Side, Record] = field(default_factory=dict[Side, Record])
    leftovers: list[str] = field(default_factory=list[str])
    complaints: list[str] = field(default_factory=list[str])
    """What else was wrong: a download that broke, a client that did not leave."""
    skipped: str = ""
    """Why this machine cannot play it."""
    rtt_ms: float = 0.0
    trace: str = ""
    """Of the exception because of which it was not played."""

    def is_right(self, side: Side) -> bool:
        """Whether a side's record says what is expected of it, times aside."""
        cell, found = ROWS[self.row].cell(self.variant, side), self.records.get(side, Record())
        same = (found.cause, found.initiated_by) == (cell.cause, cell.initiated_by)
        return same and found.acknowledged == cell.acknowledged and not self.complaints

    def is_timely(self, side: Side) -> bool:
        """Whether it was known in time."""
        took_ms = self.records.get(side, Record()).detection_ms
        limit = ROWS[self.row].cell(self.variant, side).limit
        return took_ms is None or within(limit, took_ms, self.rtt_ms, self.variant)


def within(limit: Limit, took_ms: float, rtt_ms: float, variant: Variant) -> bool:
    """Whether a limit is kept; where datagrams are lost, some do not hold."""
    if variant is Variant.LOSS and not limit.with_loss:
        return True
    return limit.at_least_ms <= took_ms <= limit.at_most_ms + limit.round_trips * rtt_ms


def perform(house: House, name: str, variant: Variant, processor: Processor) -> Outcome:
    """Play it once. The processor is shared while somebody starts or leaves, had alone while milliseconds count, and
    let go while nothing happens.

    Raises StageError, TimeoutError, and whatever else a program that does not do its part comes to.
    """
    row, played = ROWS[name], PLAYED[name]
    outcome = Outcome(name, variant)
    survives = row.survives_in(variant)
    with processor.share():
        before = set(leftovers.relayed_ports(house))
        house.enter(variant, played.options)
        link = house.connect()
        outcome.rtt_ms = link.rtt_ms
        trickle = Trickle(house.lab, CAREFUL if variant is Variant.LOSS else STEADY) if survives else None
    with _place(row, played, processor):
        try:
            moment = played.play(house, link)
        except CannotBeDone as error:
            outcome.skipped = str(error)
            moment = 0.0
        if trickle is not None:
            complaint = trickle.finish(_RECOVERS_S)
            outcome.complaints += [complaint] if complaint else []
        if not outcome.skipped:
            _read_records(house, row, link, moment, outcome)
    _after(house, played, link, outcome, processor)
    outcome.leftovers += leftovers.of_client(house) + leftovers.of_connection(house)
    if played.releases:
        outcome.leftovers += leftovers.of_allocations(house, before)
    if played.files_stay:
        with processor.share():
            house.enter(variant)
            _leave(house, outcome)
    outcome.leftovers += leftovers.of_files(house)
    return outcome


def _place(row: Row, played: Played, processor: Processor) -> contextlib.AbstractContextManager[None]:
    """Where a row's event happens."""
    if played.waits:
        return contextlib.nullcontext()
    return processor.alone() if row.is_timed else processor.share()


def end_client(house: House) -> None:
    """Kill what still runs of a client, so that another one can enter."""
    for process in house.tree:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    if house.client.process is not None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            house.client.process.wait(5)


def _read_records(house: House, row: Row, link: Link, moment: float, outcome: Outcome) -> None:
    """Wait for the endings that are due, then take what is there."""
    players = {Side.CLIENT: house.client, Side.GATEWAY: house.gateway(link)}
    due = time.time()
    for side, player in players.items():
        cell = row.cell(outcome.variant, side)
        if cell.cause != NONE:
            limit_s = cell.limit.at_most_ms / 1000 + _SLACK_S
            house.wait_for_ending(player, link, max(0.2, moment + limit_s - due))
    for side, player in players.items():
        outcome.records[side] = _record(house.ending_of(player, link), moment)


def _record(ending: Ending | None, moment: float) -> Record:
    if ending is None:
        return Record()
    took_ms = (unix(ending.ended_at) - moment) * 1000
    return Record(
        cause=ending.cause.value,
        initiated_by=ending.initiated_by.value,
        acknowledged=ending.acknowledged,
        detection_ms=round(took_ms, 3),
        evidence=str(ending.evidence),
    )


def _after(house: House, played: Played, link: Link, outcome: Outcome, processor: Processor) -> None:
    """Everybody who was touched returns; the client leaves, if it has not."""
    ends = played.client_ends and not outcome.skipped
    with processor.share():
        if ends:
            _await_end(house, outcome)
        played.mend(house, link)
    played.settle(house, link)
    if not ends:
        with processor.share():
            _leave(house, outcome)


def _leave(house: House, outcome: Outcome) -> None:
    try:
        house.client.leave("signed_out")
    except (ControlError, ControlUnavailable, subprocess.TimeoutExpired) as error:
        outcome.complaints.append(f"the client did not leave: {error!r}")


def _await_end(house: House, outcome: Outcome) -> None:
    assert house.client.process is not None
    try:
        house.client.process.wait(_LEAVE_S)
    except subprocess.TimeoutExpired:
        outcome.complaints.append("the client's program did not end")
        os.kill(house.client.pid, signal.SIGKILL)
