"""Whole agents on real sockets of the loopback interface, each with everything that it said."""

import asyncio
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from exeunt.actors.ice import (
    Address,
    Callbacks,
    Credentials,
    IceAgent,
    IceConfig,
    IceServer,
    Lost,
    Path,
    PathAgent,
    Sockets,
    new_username_and_password,
    one_by_one,
)


def only_loopback(host: str) -> bool:
    return host == "127.0.0.1"


@dataclass
class Side:
    """One agent and everything that it said."""

    config: IceConfig
    peer: "Side | None" = None
    candidates: list[str] = field(default_factory=list[str])
    withdrawn: list[str] = field(default_factory=list[str])
    datagrams: asyncio.Queue[bytes] = field(default_factory=asyncio.Queue[bytes])
    paths: list[Path] = field(default_factory=list[Path])
    losses: asyncio.Queue[Lost] = field(default_factory=asyncio.Queue[Lost])
    quiet: int = 0
    """How often it was told that its peer is not heard any more."""
    sources: set[Address | None] = field(default_factory=set[Address | None])
    """Where datagrams came from."""
    broken: int = 0
    """How often it was told that its path is broken."""
    sockets: Sockets | None = None

    def __post_init__(self) -> None:
        callbacks = Callbacks(
            on_candidate=self.on_candidate,
            on_datagrams=one_by_one(self.on_datagram),
            on_quiet=self.on_quiet,
            on_path=self.paths.append,
            on_lost=self.losses.put_nowait,
            on_withdrawn=self.on_withdrawn,
            on_broken=self.on_broken,
        )
        self.agent = IceAgent(self.config, callbacks, sockets=self.sockets)
        self.as_interface: PathAgent = self.agent

    def on_datagram(self, datagram: bytes) -> None:
        self.sources.add(self.agent.arrived_from)
        self.datagrams.put_nowait(datagram)

    def on_quiet(self) -> None:
        self.quiet += 1

    def on_broken(self, _reason: str) -> None:
        self.broken += 1

    def on_withdrawn(self, line: str, generation: int) -> None:
        self.withdrawn.append(line)
        if self.peer is not None:
            self.peer.agent.withdraw_remote_candidate(line, generation)

    @staticmethod
    def silent() -> Callbacks:
        """What somebody does who does not care."""
        return Callbacks(
            on_candidate=lambda _line, _generation: None,
            on_datagrams=lambda _buffer, _spans, _ecn: None,
            on_path=lambda _: None,
            on_lost=lambda _: None,
        )

    def on_candidate(self, line: str, generation: int) -> None:
        self.candidates.append(line)
        if self.peer is not None:
            self.peer.agent.add_remote_candidate(line, generation)


Pair = tuple[Side, Side]
MakePair = Callable[..., Pair]


def new_credentials() -> tuple[Credentials, Credentials]:
    (a_user, a_password), (b_user, b_password) = new_username_and_password(), new_username_and_password()
    ours = Credentials(
        local_username=a_user,
        local_password=a_password,
        remote_username=b_user,
        remote_password=b_password,
    )
    theirs = Credentials(
        local_username=b_user,
        local_password=b_password,
        remote_username=a_user,
        remote_password=a_password,
    )
    return ours, theirs


def config_for(credentials: Credentials, **changes: Any) -> IceConfig:
    fields: dict[str, Any] = {
        "role": "controlling",
        "local_username": credentials.local_username,
        "local_password": credentials.local_password,
        "remote_username": credentials.remote_username,
        "remote_password": credentials.remote_password,
        "host_filter": only_loopback,
    }
    return IceConfig(**{**fields, **changes})


async def connect(a: Side, b: Side, timeout_s: float = 5.0) -> tuple[Path, Path]:
    gathering = asyncio.gather(a.agent.gather(), b.agent.gather())
    paths = await asyncio.gather(a.agent.connect(timeout_s), b.agent.connect(timeout_s))
    await gathering
    return paths


async def assert_carries(a: Side, b: Side) -> None:
    for sender, receiver in ((a, b), (b, a)):
        sender.agent.send(b"\x04\x00\x00\x00 over the path")
        async with asyncio.timeout(2.0):
            assert await receiver.datagrams.get() == b"\x04\x00\x00\x00 over the path"


def turn(address: tuple[str, int], username: str = "exeunt", password: str = "a relay secret") -> IceServer:
    return IceServer("turn", *address, username=username, password=password)


def train_for(side: Side, datagrams: list[bytes]) -> tuple[memoryview, int]:
    """Lay datagrams of one length, the last maybe shorter, out as a side may send them: with its channel's headers."""
    channel = side.agent.channel
    if channel is None:
        return memoryview(bytearray(b"".join(datagrams))), len(datagrams[0])
    framed = [struct.pack("!HH", channel, len(datagram)) + datagram for datagram in datagrams]
    return memoryview(bytearray(b"".join(framed))), len(framed[0])


async def assert_carries_trains(a: Side, b: Side, *, count: int = 70) -> None:
    for sender, receiver in ((a, b), (b, a)):
        for length in (700, 701):
            sent = [(b"\x04\x00\x00\x00" + bytes([number])).ljust(length, b"x") for number in range(count)]
            sent[-1] = sent[-1][:50]
            train, stride = train_for(sender, sent)
            assert sender.agent.send_train(train, stride, len(train)) == len(sent)
            async with asyncio.timeout(2.0):
                assert [await receiver.datagrams.get() for _ in sent] == sent
