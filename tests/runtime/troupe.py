"""Actors for tests. Worker processes import them by this module's name."""

import asyncio
import builtins
import os
import signal
import socket
import threading
import time
from pathlib import Path
from typing import Any

from exeunt.runtime import Actor, BlockingActor, Later, Message, Refused, Terminated, receive
from exeunt.runtime.context import current
from exeunt.runtime.errors import Failure
from exeunt.runtime.inheritance import HAND_OVER
from exeunt.runtime.last_words import Told
from exeunt.runtime.messages import LastWords


class Say(Message, frozen=True):
    text: str


class Number(Message, frozen=True):
    n: int


class Said(Message, frozen=True):
    text: str
    pid: int = 0
    thread: int = 0


class Fail(Message, frozen=True):
    """Raise the built-in exception of that name."""

    error: str


class Refuse(Message, frozen=True):
    pass


class Relay(Message, frozen=True):
    """Ask `to`, and answer with its answer."""

    to: str
    text: str


class Open(Message, frozen=True):
    """Wait for the gate, then answer."""


class WatchIt(Message, frozen=True):
    target: str


class UnwatchIt(Message, frozen=True):
    target: str


class Ended(Message, frozen=True):
    """Answer once as many watched actors have ended."""

    count: int


class EndedList(Message, frozen=True):
    ended: tuple[Terminated, ...]


class Finish(Message, frozen=True):
    reason: str = "normal"


class Die(Message, frozen=True):
    """Kill the whole process."""


class Where(Message, frozen=True):
    """What does the handler know of its cause?"""


class Context(Message, frozen=True):
    trace: int
    cause: int
    address: str
    deadline_ns: int


class NotRegistered(Message, frozen=True):
    pass


MESSAGES: tuple[type[Message], ...] = (
    Say,
    Number,
    Said,
    Fail,
    Refuse,
    Relay,
    Open,
    WatchIt,
    UnwatchIt,
    Ended,
    EndedList,
    Finish,
    Die,
    Where,
    Context,
)


def fail(name: str) -> None:
    if name == "Unprintable":
        raise Unprintable
    raise getattr(builtins, name)("on purpose")


class Unprintable(Exception):
    def __str__(self) -> str:
        raise ValueError("no words")


def here() -> Context:
    context = current()
    assert context is not None
    return Context(context.trace, context.id, context.to, context.deadline_ns)


class Player(Actor):
    """Handles most things, and keeps a list of what it did."""

    def __init__(self) -> None:
        super().__init__()
        self.log: list[Any] = []

    def on_stop(self) -> None:
        self.log.append(("on_stop", self.exit_reason))

    def on_crash(self, failure: Failure) -> None:
        self.log.append(("on_crash", failure.type))

    @receive(Say)
    def say(self, message: Say) -> Said:
        self.log.append(message.text)
        return Said(message.text, os.getpid(), threading.get_ident())

    @receive(Number)
    async def number(self, message: Number) -> Number:
        self.log.append(message.n)
        await asyncio.sleep(0)
        return message

    @receive(Fail)
    def fail(self, message: Fail) -> None:
        fail(message.error)

    @receive(Refuse)
    def refuse(self, _message: Refuse) -> None:
        raise Refused("not_now", "ask me tomorrow")

    @receive(Relay)
    async def relay(self, message: Relay) -> Any:
        return await self.node.ref(message.to).ask(Say(message.text))

    @receive(Finish)
    def finish(self, message: Finish) -> None:
        self.stop(message.reason)

    @receive(Die)
    def die(self, _message: Die) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    @receive(Where)
    async def where(self, _message: Where) -> Context:
        return await asyncio.create_task(self._where())

    async def _where(self) -> Context:
        return here()


class Gate(Actor):
    """Its handler waits for `gate`; a Later does so beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.entered = asyncio.Event()
        self.cancelled = False

    @receive(Open)
    async def open(self, _message: Open) -> Said:
        self.entered.set()
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        return Said("open")

    @receive(Say)
    def say(self, message: Say) -> Later:
        return Later(self._later(message))

    async def _later(self, message: Say) -> Said:
        self.entered.set()
        await self.gate.wait()
        if message.text == "fail":
            raise SystemExit(3)
        return Said(message.text)

    @receive(Number)
    def number(self, message: Number) -> Number:
        return message


class Watcher(Actor):
    """Watches, and says what ended."""

    def __init__(self) -> None:
        super().__init__()
        self.ended: list[Terminated] = []
        self.changed = asyncio.Event()

    @receive(WatchIt)
    def watch(self, message: WatchIt) -> None:
        self.node.ref(message.target).watch()

    @receive(UnwatchIt)
    def unwatch(self, message: UnwatchIt) -> None:
        self.node.ref(message.target).unwatch()

    @receive(Terminated)
    def terminated(self, message: Terminated) -> None:
        self.ended.append(message)
        self.changed.set()

    @receive(Relay)
    async def relay(self, message: Relay) -> Any:
        """Also says that a watch of that actor has arrived: order is kept between two actors."""
        return await self.node.ref(message.to).ask(Say(message.text))

    @receive(Ended)
    def when_ended(self, message: Ended) -> Later:
        return Later(self._when_ended(message.count))

    async def _when_ended(self, count: int) -> EndedList:
        while len(self.ended) < count:
            self.changed.clear()
            await self.changed.wait()
        return EndedList(tuple(self.ended))


class Thinker(BlockingActor):
    """Blocks on its own thread."""

    def __init__(self) -> None:
        super().__init__()
        self.threads: set[int] = set()
        self.stopped_on = 0

    def on_start(self) -> None:
        self.threads.add(threading.get_ident())

    def on_stop(self) -> None:
        self.threads.add(threading.get_ident())

    @receive(Say)
    def say(self, message: Say) -> Said:
        self.threads.add(threading.get_ident())
        return Said(message.text, os.getpid(), threading.get_ident())

    @receive(Relay)
    def relay(self, message: Relay) -> Any:
        return self.node.ref(message.to).ask(Say(message.text)).get()

    @receive(Fail)
    def fail(self, message: Fail) -> None:
        fail(message.error)

    @receive(Where)
    def where(self, _message: Where) -> Context:
        return here()

    @receive(Open)
    async def wrong(self, _message: Open) -> None:
        raise AssertionError("never runs")


class Stubborn(Player):
    """Its end hangs: in a wait, or (`deaf`) in a loop that lets nobody else run."""

    def __init__(self, deaf: bool = False) -> None:
        super().__init__()
        self._deaf = deaf

    async def on_stop(self) -> None:  # type: ignore[override]
        if self._deaf:
            threading.Event().wait()
        await asyncio.Event().wait()


class FailsToStart(Player):
    """Its `on_start` raises while a file says how often it still will."""

    def __init__(self, counter: str, first: int = 0) -> None:
        super().__init__()
        self._counter = Path(counter)
        self._first = first

    def on_start(self) -> None:
        starts = len(self._counter.read_text()) if self._counter.exists() else 0
        self._counter.write_text("x" * (starts + 1))
        if self._first <= starts < self._first + 2:
            raise RuntimeError("stage fright")


class Chronicler(Player):
    """Writes its starts and ends into a file that it shares with others."""

    def __init__(self, file: str, name: str) -> None:
        super().__init__()
        self._file = Path(file)
        self._name = name

    def on_start(self) -> None:
        with self._file.open("a") as file:
            file.write(f"+{self._name} ")

    def on_stop(self) -> None:
        with self._file.open("a") as file:
            file.write(f"-{self._name} ")


class Mortal(Player):
    """Deposits last words, so many, to be sent to ports of this machine. Tells how long one took, in nanoseconds."""

    def __init__(self, ports: list[int], count: int = 1) -> None:
        super().__init__()
        self._ports, self._count = ports, count
        self._mouth = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._took_ns = 0

    def on_start(self) -> None:
        self._mouth.bind(("127.0.0.1", 0))
        began_ns = time.monotonic_ns()
        for number in range(self._count):
            payload = number.to_bytes(2, "big") + bytes(150)
            port = self._ports[number % len(self._ports)]
            self.node.deposits.put(str(number), self._mouth.fileno(), payload, destination=("127.0.0.1", port))
        self._took_ns = (time.monotonic_ns() - began_ns) // self._count

    def on_stop(self) -> None:
        self._mouth.close()

    @receive(Open)
    def tell(self, _message: Open) -> Number:
        return Number(self._took_ns)


class Testator(Player):
    """Deposits words for an actor, to be told if it dies."""

    def __init__(self, to: str, words: dict[str, bytes]) -> None:
        super().__init__()
        self._to, self._words = to, words

    def on_start(self) -> None:
        for key, payload in self._words.items():
            self.node.deposits.put(key, None, b"", told=Told(self._to, payload))


class Confidant(Player):
    """Is told the last words of others, and sends them to a port of this machine."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self._port = port

    @receive(LastWords)
    def pass_on(self, message: LastWords) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mouth:
            for key, payload in message.words.items():
                text = f"{message.worker} {key} ".encode() + payload
                mouth.sendto(text, ("127.0.0.1", self._port))


class Heir(Player):
    """Counts; hands its count and its socket over to its successor, and has words deposited in case nobody comes."""

    def __init__(self, port: int, takes: bool = True) -> None:
        super().__init__()
        self._port, self._takes = port, takes
        self._count = 0
        self._mouth: socket.socket | None = None

    def on_start(self) -> None:
        deposits = self.node.deposits
        bequest = deposits.inherit("heir")
        if bequest is None:
            self._mouth = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._mouth.bind(("127.0.0.1", 0))
        elif self._takes:
            self._count = int.from_bytes(bequest.document[-4:], "big")
            self._mouth = socket.socket(fileno=bequest.descriptors[0])
        else:
            return
        deposits.put("heir", self._mouth.fileno(), b"gone", destination=("127.0.0.1", self._port))
        deposits.taken("heir")

    def on_stop(self) -> None:
        if self._mouth is None:
            return
        if self.exit_reason == HAND_OVER:
            document = bytes(100_000) + self._count.to_bytes(4, "big")
            self.node.deposits.bequeath("heir", document, [self._mouth.fileno()])
        self._mouth.close()

    @receive(Number)
    def add(self, message: Number) -> Number:
        self._count += message.n
        return Number(self._count)

    @receive(Where)
    def port(self, _message: Where) -> Number:
        assert self._mouth is not None
        return Number(self._mouth.getsockname()[1])


class Parent(Actor):
    """Leaves a process of its own behind."""

    @receive(Finish)
    async def finish(self, _message: Finish) -> Number:
        process = await asyncio.create_subprocess_exec("sleep", "1000", start_new_session=True)
        return Number(process.pid)
