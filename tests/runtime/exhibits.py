"""Actors that are looked at in tests. Worker processes import them by this module's name."""

import asyncio
import contextlib
import os
import re
import threading
from typing import Any

from exeunt.runtime import Actor, BlockingActor, Later, Message, receive


class Block(Message, frozen=True):
    """Say at one named pipe that you are there, then block in this way."""

    how: str
    entered: str
    """A named pipe."""


class Count(Message, frozen=True):
    pass


class Counted(Message, frozen=True):
    n: int


MESSAGES: tuple[type[Message], ...] = (Block, Count, Counted)


def say(pipe: str) -> None:
    with open(pipe, "w", encoding="ascii") as file:
        file.write("here")


class Exhibit(Actor):
    """Counts, and blocks as it is told."""

    def __init__(self, token: str = "", label: str = "") -> None:
        super().__init__()
        self.n = 0
        self.label = label

    @receive(Count)
    def on_count(self, _message: Count) -> Counted:
        self.n += 1
        return Counted(self.n)

    @receive(Block)
    async def on_block(self, message: Block) -> Later | None:
        say(message.entered)
        if message.how == "pipe":  # in the kernel, without the interpreter's lock
            block_at(message.entered)
        elif message.how == "lock":  # in C, with the interpreter's lock, for longer than anybody lives
            re.match(r"(a+)+$", "a" * 64 + "b")
        elif message.how == "later":
            return Later(self.forever())
        else:
            await self.forever()
        return None

    async def forever(self) -> None:
        await asyncio.create_task(self.deeper())  # the chain goes on in another task

    async def deeper(self) -> None:
        await asyncio.get_running_loop().create_future()

    def snapshot(self) -> dict[str, Any]:
        return {"n": self.n, "label": self.label}


def block_at(pipe: str) -> None:
    """Block until the test opens the pipe for writing."""
    os.close(os.open(pipe, os.O_RDONLY))


class Mortal(Exhibit):
    """Fails at what others count."""

    @receive(Count)
    def on_count(self, _message: Count) -> Counted:
        raise RuntimeError("that was too much")


class Stubborn(Exhibit):
    """Doesn't let itself be killed."""

    async def forever(self) -> None:
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await self.deeper()


class Unwilling(Exhibit):
    def snapshot(self) -> dict[str, Any]:
        raise RuntimeError("none of your business")


class Opaque(Exhibit):
    def snapshot(self) -> dict[str, Any]:
        return {"self": self}


class Hesitant(Exhibit):
    async def snapshot(self) -> dict[str, Any]:  # type: ignore[override]
        await asyncio.sleep(0)
        return {"n": self.n}


class Threaded(BlockingActor):
    """Blocks on its own thread."""

    @receive(Block)
    def on_block(self, message: Block) -> None:
        say(message.entered)
        block_at(message.entered)

    def snapshot(self) -> dict[str, Any]:
        return {"thread": threading.current_thread().name}
