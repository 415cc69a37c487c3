"""Nobody wakes an idle program but its timers and what answers them, and each wake-up has a name.

The kernel says how often a thread really slept and was woken: each time the loop has nothing to do it gives its
processor away of its own will. What is counted by cause has to explain that number. The rest is what no loop sees: the
thread waits also for a page from a disk, or for the interpreter's lock while a side door answers.
"""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest

from exeunt.clients.demo.stage import Player, Stage

from .test_main_job import fetch

SETTLED_S = 20.0
"""After the download: checks that were outrun are forgotten, the MTU is found, acknowledgements are late no more."""
IDLE_S = 40.0
ASKED_S = 1.0
"""After a question, whose answer supervisors gather."""
UNNAMED, UNNAMED_SHARE = 2, 0.05
"""So many wake-ups may have no name: a few, or one in twenty."""
ANSWERS = {"udp", "relay", "portal"}
"""What outside may wake an idle program: the peer's checks and answers, a relay's, the portal's to a heartbeat."""


class Sample(NamedTuple):
    """One worker: what it counted, and what the kernel did."""

    counts: Counter[str]
    switches: int


def switches_of(pid: int) -> int:
    """How often the main thread of a process has gone to sleep."""
    status = Path(f"/proc/{pid}/task/{pid}/status").read_text()
    return int(status.partition("\nvoluntary_ctxt_switches:")[2].split()[0])


def sample(players: list[Player]) -> dict[tuple[str, str], Sample]:
    """All workers of some programs, those whom asking wakes included."""
    return {
        (player.name, row["worker"]): Sample(Counter(row["counts"]), switches_of(row["pid"]))
        for player in players
        for row in player.ask("wakeups")
    }


def test_whatever_wakes_an_idle_program_has_a_name(stage: Stage) -> None:
    fetch(stage, 100_000)
    players = [stage.client, *stage.gateways]
    time.sleep(SETTLED_S)
    before = sample(players)
    time.sleep(ASKED_S)
    asleep = [switches_of(player.pid) for player in players]
    time.sleep(IDLE_S)
    assert [switches_of(player.pid) for player in players] == pytest.approx(asleep, abs=UNNAMED)  # the supervisors
    after = sample(players)
    assert before.keys() == after.keys()
    woken: dict[tuple[str, str], Counter[str]] = {}
    for worker, (counts, switches) in after.items():
        counts.subtract(before[worker].counts)
        woken[worker] = named = +counts
        slept = switches - before[worker].switches
        if worker[1] == "supervisor":
            continue  # whom we asked; what it hears on streams from the side doors of its workers it does not count
        told = f"{worker}: slept {slept} times, {named}"
        assert slept - named.total() <= UNNAMED + UNNAMED_SHARE * slept, told
        # Two causes at one moment are one wake-up; what follows from one must not count as another.
        assert named.total() <= 1.5 * slept + 5, told
    for (program, role), named in woken.items():
        timers = {cause for cause in named if cause.startswith("timer:")}
        assert set(named) - timers <= ({"control"} if role == "supervisor" else ANSWERS), (program, role, named)
        if role == "network":
            assert not named, program
        elif role == "peers-1":
            assert named["timer:consent check"] > 0, (program, named)
    ticks = sum(count for named in woken.values() for cause, count in named.items() if cause.startswith("timer:"))
    assert sum(named[cause] for named in woken.values() for cause in ANSWERS) <= ticks
