"""`make soak`: steady traffic for ten minutes, with actors whose names come and go and workers that are killed.

Prints once a minute what each process has, and fails if a process that lived throughout has grown after its warm-up:
a quarter of the time, in which rings, caches and tables of names reach their bounds.

    EXEUNT_SOAK_S      how long, in seconds (600)
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import psutil

sys.path.insert(0, str(Path(__file__).parents[3]))

from tests.runtime.chaos.mayflies import Census, TakeCensus, tables

from exeunt.runtime import ChildSpec, Directories, ExeuntError, Intensity, Supervisor, WorkerSpec
from exeunt.runtime.backoff import Backoff

SECONDS = float(os.environ.get("EXEUNT_SOAK_S", "600"))
SAMPLES = 10
WARM_UP = SAMPLES // 4
KILL_EVERY_S = 3.0
WORKERS = ("w1", "w2", "w3", "w4")
MORTAL = ("w3", "w4")
"""Killed in turn; the others, and the supervisor, live throughout."""
GROWTH = {"uss_kb": 3_000, "objects": 2_000, "descriptors": 10}
"""What the growth after warm-up may be: the noise of an allocator, of what happens to be under way, and
of a worker that just begins or ends."""


class Sample(NamedTuple):
    rss_kb: int
    uss_kb: int
    descriptors: int
    objects: int
    tables: dict[str, int]


def program(directory: Path) -> Supervisor:
    """Return the program, to be started."""
    names = [(worker, f"{worker}{letter}") for worker in WORKERS for letter in "ab"]
    addresses = [f"soak/{worker}/{name}" for worker, name in names]
    return Supervisor(
        "soak",
        workers=[WorkerSpec(name=worker) for worker in WORKERS],
        children=[
            ChildSpec(
                id=name,
                worker=worker,
                start="tests.runtime.chaos.mayflies:Walker",
                args={"others": [one for one in addresses if f"/{worker}/" not in one], "period_s": 0.02},
            )
            for worker, name in names
        ],
        messages=["tests.runtime.chaos.mayflies:MESSAGES"],
        directories=Directories(ipc=directory / "ipc", logs=directory / "log", traces=directory / "trace"),
        intensity=Intensity(restarts=10**9, period_s=0.01),
        backoff=Backoff(first_s=0.0),
        log_level="CRITICAL",
    )


async def sample(supervisor: Supervisor) -> dict[str, Sample]:
    """Look at every process."""
    found: dict[str, Sample] = {}
    for worker in WORKERS:
        try:
            census: Census = await supervisor.ref(f"{worker}a").ask(TakeCensus())
            process = psutil.Process(supervisor.processes[worker].pid)
        except (ExeuntError, KeyError, psutil.NoSuchProcess):
            continue  # it has just been killed
        found[worker] = _look(process, census)
    found["supervisor"] = _look(psutil.Process(), Census(0, tables(supervisor.node)))
    return found


def _look(process: psutil.Process, census: Census) -> Sample:
    memory = process.memory_full_info()
    return Sample(memory.rss // 1024, memory.uss // 1024, process.num_fds(), census.objects, census.tables)


async def soak(directory: Path) -> list[dict[str, Sample]]:
    """Run, and return a sample for each tenth of the time."""
    supervisor = program(directory)
    await supervisor.start()
    begun_s = time.monotonic()
    kills = asyncio.ensure_future(_kill(supervisor))
    samples: list[dict[str, Sample]] = []
    try:
        for number in range(1, SAMPLES + 1):
            await asyncio.sleep(max(0.0, begun_s + number * SECONDS / SAMPLES - time.monotonic()))
            samples.append(await sample(supervisor))
            _show(number * SECONDS / SAMPLES, samples[-1], supervisor)
    finally:
        kills.cancel()
        outcome = await supervisor.leave()
    assert not outcome.failed, outcome
    return samples


async def _kill(supervisor: Supervisor) -> None:
    number = 0
    while True:
        await asyncio.sleep(KILL_EVERY_S)
        worker = MORTAL[number % len(MORTAL)]
        number += 1
        if supervisor.worker_state(worker) == "running":
            supervisor.processes[worker].kill()


def _show(at_s: float, found: dict[str, Sample], supervisor: Supervisor) -> None:
    print(f"{at_s:6.0f} s  restarts {sum(supervisor.worker_restarts.values())}", flush=True)
    for worker, one in found.items():
        print(f"  {worker:10}  RSS {one.rss_kb:7} kB  USS {one.uss_kb:7} kB  fds {one.descriptors:3}", end="")
        print(f"  objects {one.objects:7}  {one.tables}", flush=True)


def grown(samples: list[dict[str, Sample]]) -> list[str]:
    """Say what has grown more than it may."""
    complaints: list[str] = []
    for worker in ("w1", "w2", "supervisor"):
        of = [one[worker] for one in samples[WARM_UP:] if worker in one]
        for what, at_most in GROWTH.items():
            first, last = getattr(of[0], what), getattr(of[-1], what)
            print(f"{worker:10}  {what:12} {first:8} → {last:8}")
            if last - first > at_most:
                complaints.append(f"{what} of {worker} grew by {last - first} after warm-up; {at_most} is allowed")
    return complaints


def main() -> None:
    """Soak, and exit with 1 if anything has grown."""
    with tempfile.TemporaryDirectory() as directory:
        complaints = grown(asyncio.run(soak(Path(directory))))
    print("\n".join(complaints) or "flat")
    sys.exit(bool(complaints))


if __name__ == "__main__":
    main()
