"""Who plays in the chaos: eight actors that talk without end, and write down what they do.

Each tells and asks the others by a random generator of its own, so that a seed gives each the same intentions,
whatever happens to them.
"""

from __future__ import annotations

import asyncio
import builtins
import random
from typing import Any, ClassVar

from tests.runtime.chaos.book import Book, name_of, next_id

from exeunt.runtime import Actor, Later, Message, Refused, receive
from exeunt.runtime.mailbox import Policy
from exeunt.runtime.node import Node

ASK_S = 1.0


class Tick(Message, frozen=True):
    """Talk to somebody: an actor's own timer."""


class Note(Message, frozen=True):
    """A tell."""

    text: str = ""


class Chase(Message, frozen=True):
    """A tell whose handler asks, and waits for it."""


class Query(Message, frozen=True):
    """An ask that is answered at once, later, after another ask, or with no."""


class Trip(Message, frozen=True):
    """Raise the built-in exception of that name."""

    error: str


class Flood(Message, frozen=True):
    """Tell somebody more at once than its mailbox may hold."""

    to: str
    count: int


class Answer(Message, frozen=True):
    pass


MESSAGES: tuple[type[Message], ...] = (Tick, Note, Chase, Query, Trip, Flood, Answer)
NUMBERED = frozenset(kind.__name__ for kind in (Note, Chase, Query, Trip, Flood))
"""What is written down."""


def tell(node: Node, book: Book, to: str, message: Message) -> None:
    """Tell, after writing so."""
    book.write("S", next_id(node), to)
    node.ref(to).tell(message)


async def ask(node: Node, book: Book, to: str, message: Message, timeout_s: float = ASK_S) -> str:
    """Ask; write how it ended, and say so."""
    loop = node.loop
    id_, begun_s = next_id(node), loop.time()
    book.write("A", id_, to)
    outcome = "asker ended"
    try:
        await node.ref(to).ask(message, timeout_s=timeout_s)
        outcome = "answered"
    except Exception as error:  # noqa: BLE001 - its name is what is asked for
        outcome = name_of(error)
    finally:
        book.write("E", id_, outcome, round((loop.time() - begun_s) * 1000, 1))
    return outcome


class Talker(Actor):
    """Talks to the others."""

    def __init__(self, directory: str, seed: int, others: list[str], period_s: float = 0.02) -> None:
        super().__init__()
        self._directory, self._seed, self._others, self._period_s = directory, seed, others, period_s

    def on_start(self) -> None:
        self.book = Book.of(self.node, self._directory)
        self.rng = random.Random(f"{self._seed} {self.ref} {self.incarnation}")
        self.every(self._period_s, Tick())

    def _begin(self) -> None:
        envelope = self.lifecycle.envelope
        assert envelope is not None
        self.book.write("B", envelope.id)

    def _somebody(self) -> str:
        return self.rng.choice(self._others)

    @receive(Tick)
    def on_tick(self, _message: Tick) -> Later | None:
        """Tell a few, and maybe ask."""
        for _ in range(self.rng.randrange(1, 6)):
            tell(self.node, self.book, self._somebody(), Note("x" * self.rng.randrange(100)))
        chance = self.rng.random()
        if chance < 0.1:
            tell(self.node, self.book, self._somebody(), Chase())
        return Later(self._ask()) if chance > 0.4 else None

    async def _ask(self) -> None:
        await ask(self.node, self.book, self._somebody(), Query())

    @receive(Note)
    def on_note(self, _message: Note) -> None:
        self._begin()

    @receive(Chase)
    def on_chase(self, _message: Chase) -> Any:
        self._begin()
        return self._ask()

    @receive(Query)
    def on_query(self, _message: Query) -> Any:
        self._begin()
        chance = self.rng.random()
        if chance < 0.6:
            return Answer()
        if chance < 0.8:
            return Later(self._answer_after(self.rng.random() * 0.02))
        if chance < 0.9:
            raise Refused("not_now", "by chance")
        return self._relay()

    async def _answer_after(self, delay_s: float) -> Answer:
        await asyncio.sleep(delay_s)
        return Answer()

    async def _relay(self) -> Answer:
        await self._ask()
        return Answer()

    @receive(Trip)
    def on_trip(self, message: Trip) -> None:
        self._begin()
        raise getattr(builtins, message.error)("by chance")

    @receive(Flood)
    def on_flood(self, message: Flood) -> None:
        self._begin()
        for _ in range(message.count):
            tell(self.node, self.book, message.to, Note())


class Small(Talker):
    """Takes little."""

    mailbox_bound: ClassVar[int] = 16


class Oldest(Small):
    """Drops the oldest."""

    mailbox_policy: ClassVar[Policy] = "drop_oldest"


class Blocking(Small):
    """Holds up who tells it too much."""

    mailbox_policy: ClassVar[Policy] = "block"
