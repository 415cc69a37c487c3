"""Actors that join groups and look each other up. Worker processes import them by this module's name."""

import asyncio

from tests.runtime import troupe
from tests.runtime.troupe import Number, Player, Said, Say

from exeunt.runtime import Message, receive


class Join(Message, frozen=True):
    group: str


class Quit(Message, frozen=True):
    group: str


class Who(Message, frozen=True):
    """Answer with the members of a group."""

    group: str


class Names(Message, frozen=True):
    names: tuple[str, ...]


class Call(Message, frozen=True):
    """Tell everybody in a group this number; answer with how many they were."""

    group: str
    n: int


class Turns(Message, frozen=True):
    """Answer with whose turn it is, so often."""

    group: str
    times: int


class Heard(Message, frozen=True):
    """Answer with how many numbers have come."""


MESSAGES: tuple[type[Message], ...] = (*troupe.MESSAGES, Join, Quit, Who, Names, Call, Turns, Heard)


class Singer(Player):
    """Joins the groups it is told to, and those of its spec at its start."""

    def __init__(self, groups: tuple[str, ...] = ()) -> None:
        super().__init__()
        self._groups = groups
        self._heard = 0

    def on_start(self) -> None:
        for group in self._groups:
            self.node.groups.join(group)

    @receive(Join)
    def join(self, message: Join) -> None:
        self.node.groups.join(message.group)

    @receive(Quit)
    def quit(self, message: Quit) -> None:
        self.node.groups.leave(message.group)

    @receive(Who)
    def who(self, message: Who) -> Names:
        return Names(tuple(str(ref) for ref in self.node.groups.members(message.group)))

    @receive(Call)
    def call(self, message: Call) -> Number:
        return Number(self.node.groups.tell_all(message.group, Number(message.n)))

    @receive(Turns)
    def turns(self, message: Turns) -> Names:
        return Names(tuple(str(self.node.groups.one_of(message.group)) for _ in range(message.times)))

    @receive(Number)
    async def number(self, message: Number) -> Number:
        self._heard += 1
        await asyncio.sleep(0)
        return message

    @receive(Heard)
    def heard(self, _message: Heard) -> Number:
        return Number(self._heard)

    @receive(Say)
    def say(self, message: Say) -> Said:
        """Say where a child lives."""
        return Said(str(self.node.whereis(message.text)))
