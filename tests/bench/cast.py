"""The actors of the benchmark."""

from __future__ import annotations

from exeunt.runtime import Actor, Message, receive


class Ping(Message, frozen=True):
    """64 bytes on the wire, envelope aside."""

    number: int
    padding: bytes = bytes(40)


class Pong(Message, frozen=True):
    """The answer."""

    number: int


class Count(Message, frozen=True):
    """How many tells have come?"""


class Note(Message, frozen=True):
    """A tell to be counted."""

    number: int
    padding: bytes = bytes(40)


MESSAGES: tuple[type[Message], ...] = (Ping, Pong, Count, Note)


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


class AsyncEcho(Actor):
    """The same with an async handler."""

    @receive(Ping)
    async def on_ping(self, message: Ping) -> Pong:
        return Pong(message.number)
