"""Actors whose names come and go, and what a node still keeps of them afterwards: nothing, if all is well."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools

from exeunt.runtime import Actor, ExeuntError, Later, Message, Terminated, receive
from exeunt.runtime.node import Node


class Tick(Message, frozen=True):
    """A walker's own timer."""


class Hatch(Message, frozen=True):
    """Start so many mayflies; answered with their names when they live."""

    count: int


class Brood(Message, frozen=True):
    names: tuple[str, ...]


class Visit(Message, frozen=True):
    """Watch this mayfly, and tell it to go."""

    address: str


class Go(Message, frozen=True):
    """Your time has come."""


class Hello(Message, frozen=True):
    pass


class TakeCensus(Message, frozen=True):
    """What does your process keep?"""


class Census(Message, frozen=True):
    objects: int
    """What the garbage collector knows."""
    tables: dict[str, int]


class Visits(Message, frozen=True):
    """How many mayflies has this walker seen end?"""

    count: int = 0


MESSAGES: tuple[type[Message], ...] = (Tick, Hatch, Brood, Visit, Go, Hello, TakeCensus, Census, Visits)


class Mayfly(Actor):
    """Lives until it is told to go; for ten seconds, if its visitor has died."""

    def on_start(self) -> None:
        self.after(10.0, Go())

    @receive(Hello)
    def on_hello(self, message: Hello) -> Hello:
        return message

    @receive(Go)
    def on_go(self, _message: Go) -> None:
        self.stop()


class Walker(Actor):
    """Hatches mayflies, has other walkers visit them, and visits theirs."""

    def __init__(self, others: list[str], period_s: float = 0.0) -> None:
        super().__init__()
        self._others = itertools.cycle(others)
        self._period_s = period_s
        self._numbers = itertools.count()
        self._seen = 0

    def on_start(self) -> None:
        if self._period_s:
            self.every(self._period_s, Tick())

    @receive(Tick)
    def on_tick(self, _message: Tick) -> Later:
        """Hatch one, have it visited from another worker, and ask around."""
        other = next(self._others)
        for name in self._hatch(1):
            self.node.ref(other).tell(Visit(f"{self.node.prefix}{name}"))
        return Later(self._greet(other))

    async def _greet(self, other: str) -> None:
        with contextlib.suppress(ExeuntError):
            await self.node.ref(other).ask(Hello(), timeout_s=1.0)

    @receive(Hatch)
    def on_hatch(self, message: Hatch) -> Brood:
        return Brood(self._hatch(message.count))

    def _hatch(self, count: int) -> tuple[str, ...]:
        me = self.ref.address.name
        names = tuple(f"{me}.{self.incarnation}.{next(self._numbers)}" for _ in range(count))
        for name in names:
            self.node.start(Mayfly(), name)
        return names

    @receive(Visit)
    def on_visit(self, message: Visit) -> None:
        mayfly = self.node.ref(message.address)
        mayfly.watch()
        mayfly.tell(Hello())
        mayfly.tell(Go())

    @receive(Terminated)
    def on_terminated(self, _message: Terminated) -> None:
        self._seen += 1

    @receive(Visits)
    def on_seen(self, _message: Visits) -> Visits:
        return Visits(self._seen)

    @receive(Hello)
    def on_hello(self, message: Hello) -> Hello:
        return message

    @receive(TakeCensus)
    async def on_take_census(self, _message: TakeCensus) -> Census:
        await asyncio.sleep(0)
        gc.collect()
        return Census(len(gc.get_objects()), tables(self.node))


def tables(node: Node) -> dict[str, int]:
    """Count what a node keeps about actors, messages and workers."""
    found = {
        "actors": len(node.actors),
        "by_address": len(node.by_address),
        "asks": len(node.asks),
        "outboxes": len(node.outboxes.unsettled(but="$")),
        "unreported": sum(len(rows) for rows in vars(node)["_accounts"]._unreported.values()),
        "watchers": len(vars(node.watches)["_by_watcher"]),
        "watched": len(vars(node.watches)["_by_target"]),
        "bursts": len(vars(node.dead_letters)["_bursts"]),
    }
    if node.recorder is not None:
        found["strings"] = len(vars(node.recorder)["_strings"])
    return found
