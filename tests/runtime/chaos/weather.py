"""The same actors in virtual time: four workers on one loop, joined by memory, and thousands of faults in seconds.

Beside what hits processes, the network itself is at fault here: it loses, delays, brings twice, and parts two workers.
What it has lost or doubled is known by id, and is the network's doing, nobody else's.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tests.runtime.chaos import cast
from tests.runtime.chaos.book import Book
from tests.runtime.chaos.cast import MESSAGES, Answer, Chase, Flood, Note, Query, Trip, ask, tell
from tests.runtime.chaos.storm import ADDRESSES, KINDS, NAMES, WORKERS

from exeunt.runtime.actor import Actor
from exeunt.runtime.envelope import Envelope
from exeunt.runtime.errors import Failure
from exeunt.runtime.host import stop_all
from exeunt.runtime.node import Node
from exeunt.runtime.recorder import Recorder
from exeunt.runtime.testing import FakeClock, MemoryNetwork

LOSSES = ("worker killed", "lost", "parted")
DOUBLES = ("brought twice",)
ALWAYS = ("delayed", "handler raised", "actor stopped", "actor killed", "mailbox flooded")
_SETTLE_S = 5.0  # what is under way is held up for a second at most, behind others that are, too
FALLIBLE = (Note, Chase, Query, Answer)


class Weather:
    """A program on a memory network, and what hits it."""

    def __init__(self, directory: Path, seed: int, faults: Sequence[str]) -> None:
        self.books, self.rings = directory / "books", directory / "rings"
        self.books.mkdir(parents=True)
        self.rings.mkdir()
        self.hits: Counter[str] = Counter()
        self.killed: set[int] = set()
        """The lives of the workers that were."""
        self.lost: set[int] = set()
        self.twice: set[int] = set()
        self._rng = random.Random(seed)
        self._seed = seed
        self._faults = faults
        self._network = MemoryNetwork(name="c", messages=MESSAGES)
        vars(self._network)["_network"].route = self._route
        self._lives = 0
        self._asks: set[asyncio.Task[str]] = set()
        self._open: list[Book] = []

    def run(self, faults: int) -> list[int]:
        """Have so many faults hit; return how many asks each node has pending at the end."""
        return FakeClock().run(self._run(faults))

    async def _run(self, faults: int) -> list[int]:
        async with self._network:
            for worker in WORKERS:
                self._live(worker)
            while self.hits.total() < faults:
                self._talk()
                fault = self._rng.choice(self._faults)
                await self._hit(fault)
                self.hits[fault] += 1
                await asyncio.sleep(0.01)
            self._network.faults.lift_all()
            await asyncio.gather(*self._asks)
            nodes = list(self._network.nodes.values())
            for node in nodes:
                await stop_all(node, "shutdown")
            for node in nodes:
                await node.until_settled(_SETTLE_S)
        await asyncio.sleep(2 * cast.ASK_S)  # what was asked from the stopped has timed out by now
        for book in self._open:
            book.close()
        for node in nodes:
            if node.recorder is not None:
                node.recorder.close()
        return [len(node.asks) for node in nodes]

    # --- who lives ---

    def _live(self, worker: str) -> None:
        """Begin a life of a worker, with its actors."""
        self._lives += 1
        recorder = Recorder(self.rings / f"c.{worker}.{self._lives}.ring", worker=worker, epoch=self._lives)
        node = self._network.add(worker, recorder=recorder)
        node.on_exit = self._restart
        self._open.append(Book.of(node, str(self.books)))
        for number, name in enumerate(NAMES):
            if WORKERS[number % 4] == worker:
                self._start(node, number, name, incarnation=1)

    def _start(self, node: Node, number: int, name: str, *, incarnation: int) -> None:
        kind = getattr(cast, KINDS[number])
        others = [address for address in ADDRESSES if not address.endswith(name)]
        node.start(kind(str(self.books), self._seed, others), name, incarnation=incarnation)

    def _restart(self, actor: Actor, reason: str, _failure: Failure | None) -> None:
        if reason != "shutdown":
            name = actor.ref.address.name
            node = actor.node
            node.loop.call_soon(lambda: self._start_again(node, name, actor.incarnation + 1))

    def _start_again(self, node: Node, name: str, incarnation: int) -> None:
        if self._network.nodes.get(node.worker) is node and name not in node.actors:
            self._start(node, NAMES.index(name), name, incarnation=incarnation)

    # --- what hits ---

    def _route(self, _from: str, _to: str, envelope: Envelope) -> Sequence[float]:
        for fault in vars(self._network.faults)["_faults"]:
            if fault.meets(envelope):
                if not fault.copies:
                    self.lost.add(envelope.id)
                elif len(fault.copies) > 1:
                    self.twice.add(envelope.id)
                copies: Sequence[float] = fault.copies
                return copies
        return (0.0,)

    def _somebody(self) -> str:
        return self._rng.choice(ADDRESSES)

    def _node(self) -> Node:
        return self._network.nodes[self._rng.choice(WORKERS)]

    def _ask(self, message: Query | Trip | Flood) -> None:
        node = self._node()
        task = asyncio.ensure_future(ask(node, Book.of(node, str(self.books)), self._somebody(), message))
        self._asks.add(task)
        task.add_done_callback(self._asks.discard)

    def _talk(self) -> None:
        node = self._node()
        tell(node, Book.of(node, str(self.books)), self._somebody(), Note())
        self._ask(Query())

    async def _hit(self, fault: str) -> None:
        network, rng = self._network, self._rng
        kind, times, to = rng.choice(FALLIBLE), rng.randrange(1, 5), f"c/{rng.choice(WORKERS)}"
        if fault == "worker killed":
            worker = rng.choice(WORKERS)
            self.killed.add(network.nodes[worker].life)
            await network.kill(worker)
            self._live(worker)
        elif fault == "lost":
            network.faults.drop(kind, to=to, times=times)
        elif fault == "parted":
            for one in FALLIBLE:
                network.faults.drop(one, to=to, sender=f"c/{rng.choice(WORKERS)}", times=times)
        elif fault == "delayed":
            network.faults.delay(kind, to=to, by_s=rng.random(), times=times)
        elif fault == "brought twice":
            network.faults.duplicate(kind, to=to, times=times)
        elif fault == "handler raised":
            self._ask(Trip(rng.choice(("ValueError", "SystemExit", "KeyboardInterrupt", "GeneratorExit"))))
        elif fault == "mailbox flooded":
            self._ask(Flood(self._somebody(), 64))
        else:
            ref = self._node().ref(self._somebody())
            ref.kill() if fault == "actor killed" else ref.stop("restart")
