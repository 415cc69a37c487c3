"""A program of eight actors in four workers, and the faults that hit it.

Faults go round by a seeded generator. One counts when it has hit: the process that was to be killed lived, the handler
that was to raise has raised, as its asker was told.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

from tests.runtime.chaos.book import Book
from tests.runtime.chaos.cast import Chase, Flood, Note, Query, Trip, ask, tell

from exeunt.runtime import ChildSpec, Directories, Intensity, Supervisor, WorkerSpec
from exeunt.runtime.backoff import Backoff
from exeunt.runtime.engine import Kind

WORKERS = ("w1", "w2", "w3", "w4")
KINDS = ("Talker", "Small", "Talker", "Oldest", "Small", "Talker", "Blocking", "Talker")
NAMES = tuple(f"a{number}" for number in range(len(KINDS)))
ADDRESSES = tuple(f"c/{WORKERS[number % 4]}/{name}" for number, name in enumerate(NAMES))
PAUSE_S = 0.01
_PATIENCE_S = 30.0  # for a worker to be usable again; one takes 0.3 s on an idle machine
_SIGSTOP_S = (0.02, 0.4)


def program(directories: Directories, books: Path, seed: int, engine: Kind = "processes") -> Supervisor:
    """Return the program, to be started."""
    tireless = Intensity(restarts=10**9, period_s=0.01)  # it does not give up
    return Supervisor(
        "c",
        workers=[WorkerSpec(name=worker) for worker in WORKERS],
        children=[
            ChildSpec(
                id=name,
                worker=WORKERS[number % 4],
                start=f"tests.runtime.chaos.cast:{KINDS[number]}",
                args={"directory": str(books), "seed": seed, "others": [a for a in ADDRESSES if a[5:] != name]},
                shutdown_ms=2_000,
            )
            for number, name in enumerate(NAMES)
        ],
        messages=["tests.runtime.chaos.cast:MESSAGES"],
        directories=directories,
        intensity=tireless,
        backoff=Backoff(first_s=0.0),
        engine=engine,
        log_level="CRITICAL",
        rng=random.Random(seed),
    )


class Storm:
    """Hits a program."""

    def __init__(self, supervisor: Supervisor, books: Path, seed: int) -> None:
        self.hits: Counter[str] = Counter()
        self.killed: set[int] = set()
        """The pids of the workers that were."""
        self.book = Book.of(supervisor.node, str(books))
        self._supervisor = supervisor
        self._rng = random.Random(seed)
        self._stopped: dict[int, asyncio.TimerHandle] = {}
        self._asks: set[asyncio.Task[str]] = set()
        self._faults: dict[str, tuple[int, Callable[[], Awaitable[bool]]]] = {
            "worker killed": (2, self._kill),
            "worker stopped and continued": (2, self._stop_process),
            "handler raised": (5, lambda: self._trip("ValueError")),
            "SystemExit in a handler": (3, lambda: self._trip("SystemExit")),
            "actor stopped amid its mail": (4, self._stop_actor),
            "actor killed amid its mail": (2, self._kill_actor),
            "mailbox flooded": (5, self._flood),
        }

    async def rage(self, faults: int) -> None:
        """Have so many faults hit, then let go of what is stopped."""
        names = list(self._faults)
        weights = [weight for weight, _ in self._faults.values()]
        while self.hits.total() < faults:
            name = self._rng.choices(names, weights)[0]
            self._talk()
            if await self._faults[name][1]():
                self.hits[name] += 1
            await asyncio.sleep(PAUSE_S)
        for pid in list(self._stopped):
            self._continue(pid)

    async def until_calm(self) -> None:
        """Return when every ask of ours has ended."""
        await asyncio.gather(*self._asks)

    # --- what hits ---

    def _somebody(self) -> str:
        return self._rng.choice(ADDRESSES)

    def _ask(self, to: str, message: Query | Trip | Flood) -> asyncio.Task[str]:
        task = asyncio.ensure_future(ask(self._supervisor.node, self.book, to, message))
        self._asks.add(task)
        task.add_done_callback(self._asks.discard)
        return task

    def _talk(self) -> None:
        """Say what anybody says."""
        tell(self._supervisor.node, self.book, self._somebody(), Note())
        tell(self._supervisor.node, self.book, self._somebody(), Chase())
        self._ask(self._somebody(), Query())

    async def _usable(self) -> int:
        """Return the pid of a worker that has been introduced, and is not stopped."""
        async with asyncio.timeout(_PATIENCE_S):
            while True:
                worker = self._rng.choice(WORKERS)
                if self._supervisor.worker_state(worker) == "running":
                    pid = self._supervisor.processes[worker].pid
                    if pid not in self._stopped:
                        return pid
                await asyncio.sleep(PAUSE_S)

    async def _kill(self) -> bool:
        pid = await self._usable()
        os.kill(pid, signal.SIGKILL)
        self.killed.add(pid)
        return True

    async def _stop_process(self) -> bool:
        pid = await self._usable()
        os.kill(pid, signal.SIGSTOP)
        for_s = self._rng.uniform(*_SIGSTOP_S)
        self._stopped[pid] = asyncio.get_running_loop().call_later(for_s, self._continue, pid)
        if self._rng.random() < 0.3:  # it dies while it is stopped, with mail waiting in its socket
            os.kill(pid, signal.SIGKILL)
            self.killed.add(pid)
            self.hits["worker killed"] += 1
        return True

    def _continue(self, pid: int) -> None:
        self._stopped.pop(pid).cancel()
        if pid not in self.killed:
            os.kill(pid, signal.SIGCONT)

    async def _trip(self, error: str) -> bool:
        return await self._ask(self._somebody(), Trip(error)) == "RemoteFailure"

    async def _stop_actor(self) -> bool:
        to = self._somebody()
        tell(self._supervisor.node, self.book, to, Note())
        self._supervisor.node.ref(to).stop("restart")
        tell(self._supervisor.node, self.book, to, Note())
        return await self._ask(to, Query()) == "ActorDead"

    async def _kill_actor(self) -> bool:
        to = self._somebody()
        tell(self._supervisor.node, self.book, to, Chase())
        self._supervisor.node.ref(to).kill()
        return await self._ask(to, Query()) == "ActorDead"

    async def _flood(self) -> bool:
        to = self._rng.choice([address for address, kind in zip(ADDRESSES, KINDS, strict=True) if kind == "Small"])
        return await self._ask(self._somebody(), Flood(to, 64)) == "answered"
