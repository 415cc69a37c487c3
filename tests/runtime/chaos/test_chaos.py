"""Chaos with real processes: whatever hits a program, each of its messages is accounted for, and nothing is left."""

import asyncio
import contextlib
import os
from collections import Counter
from pathlib import Path

import pytest
from tests.runtime.chaos.reckoning import Reckoning
from tests.runtime.chaos.storm import Storm, program
from tests.runtime.conftest import our_processes

from exeunt.runtime import Directories, Outcome, Supervisor

FAULTS = int(os.environ.get("EXEUNT_CHAOS_FAULTS", "150"))
SEED = int(os.environ.get("EXEUNT_CHAOS_SEED", "1"))
ASK_GRACE_MS = 10_000  # a busy machine, and processes that are stopped for a while


@pytest.mark.slow
@pytest.mark.timeout(60 + FAULTS)
async def test_every_message_is_accounted_for(directories: Directories, tmp_path: Path) -> None:
    books, rings = tmp_path / "books", tmp_path / "rings"
    books.mkdir()
    rings.mkdir()
    processes, descriptors = set(our_processes()), _descriptors(tmp_path)
    supervisor = program(directories, books, SEED)
    await supervisor.start()
    storm = Storm(supervisor, books, SEED)
    try:
        await storm.rage(FAULTS)
        last = [process for process in supervisor.processes.values() if process.is_ready]
        outcome, _ = await asyncio.gather(_leave(supervisor, directories, rings), storm.until_calm())
    finally:
        supervisor.force()
        await supervisor.wait()
        storm.book.close()
    assert (outcome.failed, outcome.reason, outcome.leftovers) == (False, "shutdown", ())
    # Those that were just starting are killed.
    assert {process.exit_reason for process in last if process.pid not in storm.killed} <= {"exit code 0"}
    assert len(supervisor.node.asks) == 0
    assert set(our_processes()) <= processes
    assert _descriptors(tmp_path) - descriptors == Counter()
    assert not list(directories.ipc.iterdir())

    reckoning = Reckoning(books, rings, killed=storm.killed)
    print(dict(storm.hits), reckoning.summary())
    reckoning.check()
    assert storm.hits.total() >= FAULTS
    assert max(facts.slowest_ms for facts in reckoning.facts) < 1_000 + ASK_GRACE_MS


def _descriptors(home: Path) -> Counter[str]:
    """What this process has open, by kind, and of files those below `home`: another test's log may be opened anew by
    whatever is logged meanwhile.
    """
    found: Counter[str] = Counter()
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # the one that lists them
            opened = link.readlink()
            if not opened.is_file() or opened.is_relative_to(home):
                found[str(opened).partition("[")[0]] += 1
    return found


async def _leave(supervisor: Supervisor, directories: Directories, rings: Path) -> Outcome:
    """Leave amid all traffic; keep every ring, of which only the newest would be."""
    for ring in directories.traces.glob("*.ring"):
        os.link(ring, rings / ring.name)
    return await supervisor.leave()
