"""The actors of the benchmark."""

from __future__ import annotations

import asyncio
import time

from exeunt.runtime import Actor, Later, Message, receive


class Ping(Message, frozen=True):
    """64 bytes on the wire, envelope aside."""

    number: int
    padding: bytes = bytes(49)


class Pong(Message, frozen=True):
    """The answer."""

    number: int


class Count(Message, frozen=True):
    """How many tells have come?"""


class Note(Message, frozen=True):
    """A tell to be counted: 64 bytes on the wire, envelope aside."""

    number: int
    padding: bytes = bytes(49)


class Hang(Message, frozen=True):
    """An ask that is never answered."""


class Populate(Message, frozen=True):
    """Start so many actors here."""

    count: int


class Populated(Message, frozen=True):
    """They live, after so long."""

    took_s: float


class Mute(Message, frozen=True):
    """Stop recording in this worker."""


MESSAGES: tuple[type[Message], ...] = (Ping, Pong, Count, Note, Hang, Populate, Populated, Mute)


class Echo(Actor):
    """Answers, and counts."""

    mailbox_bound = 1_000_000

    def __init__(self) -> None:
        super().__init__()
        self._notes = 0

    @receive(Ping)
    def on_ping(self, message: Ping) -> Pong:
        return Pong(message.number)

    @receive(Note)
    def on_note(self, _message: Note) -> None:
        self._notes += 1

    @receive(Count)
    def on_count(self, _message: Count) -> Pong:
        return Pong(self._notes)

    @receive(Hang)
    def on_hang(self, _message: Hang) -> Later:
        return Later(asyncio.sleep(3600))

    @receive(Mute)
    def on_mute(self, _message: Mute) -> None:
        self.node.recorder = None


class AsyncEcho(Actor):
    """The same with async handlers."""

    mailbox_bound = 1_000_000

    def __init__(self) -> None:
        super().__init__()
        self._notes = 0

    @receive(Ping)
    async def on_ping(self, message: Ping) -> Pong:
        return Pong(message.number)

    @receive(Note)
    async def on_note(self, _message: Note) -> None:
        self._notes += 1

    @receive(Count)
    async def on_count(self, _message: Count) -> Pong:
        return Pong(self._notes)


class Idle(Actor):
    """One of a crowd."""

    @receive(Ping)
    def on_ping(self, message: Ping) -> Pong:
        return Pong(message.number)


class Spawner(Actor):
    """Fills its worker with actors."""

    @receive(Populate)
    async def on_populate(self, message: Populate) -> Populated:
        began = time.perf_counter()
        for number in range(message.count):
            self.node.start(Idle(), f"idle-{number}")
        last = self.node.actors[f"idle-{message.count - 1}"]
        await last.started
        assert all(actor.state == "running" for name, actor in self.node.actors.items() if name.startswith("idle-"))
        return Populated(time.perf_counter() - began)
