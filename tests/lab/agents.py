"""Agents in processes of their own, and connects between two of them, with a portal's delay between what they say."""

from __future__ import annotations

import asyncio
import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Self

import msgspec

from exeunt.actors.ice import IceServer, Path, new_username_and_password
from exeunt.clients.lab import Namespace

from .protocol import (
    Candidate,
    Carried,
    Close,
    Closed,
    Connected,
    Failed,
    Hear,
    Hint,
    Open,
    Order,
    PathGone,
    PathTaken,
    Ready,
    Report,
    Restart,
    Restarted,
    SessionReport,
    Talk,
    Withdraw,
    Withdrawn,
)

ROOT = FilePath(__file__).parents[2]
SIGNALLING_S = 0.050
"""How long a candidate takes from one side to the other, by the portal."""
CONNECT_S = 20.0
CLOSE_S = 10.0
READY_S = 30.0


class AgentProcess:
    """A process with agents at one host, started when made. A context manager, on a running loop, once it is ready."""

    def __init__(self, host: Namespace, environ: Mapping[str, str]) -> None:
        self.name = host.name
        self._process: subprocess.Popen[bytes] = host.popen(
            [sys.executable, "-m", "tests.lab.agent_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env={**os.environ, **environ},
        )
        self._sessions: dict[int, Side] = {}
        self._decoder = msgspec.json.Decoder(Report)
        self._reading: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        reader = asyncio.StreamReader()
        self._transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), self._process.stdout
        )
        async with asyncio.timeout(READY_S):
            assert isinstance(self._decoder.decode(await reader.readline()), Ready)
        self._reading = asyncio.create_task(self._read(reader))
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        if self._reading is not None:
            await asyncio.wait_for(self._reading, CLOSE_S)  # it ends with the process's stdout
        self._transport.close()
        await asyncio.to_thread(self._process.wait, CLOSE_S)

    def tell(self, order: Order) -> None:
        """Give an order."""
        assert self._process.stdin is not None
        self._process.stdin.write(msgspec.json.encode(order) + b"\n")
        self._process.stdin.flush()

    def attach(self, side: Side) -> None:
        """Have the reports of a session go to this side of a connect."""
        self._sessions[side.session] = side

    def detach(self, side: Side) -> None:
        """Have them go nowhere."""
        self._sessions.pop(side.session, None)

    async def _read(self, reader: asyncio.StreamReader) -> None:
        while line := await reader.readline():
            report = self._decoder.decode(line)
            assert not isinstance(report, Ready)
            side = self._sessions.get(report.session)
            if side is not None:
                side.take(report)


@dataclass
class Side:
    """One side of a connect: what its agent has said so far."""

    session: int
    process: AgentProcess
    peer: Side | None = None
    candidates: list[str] = field(default_factory=list[str])
    paths: list[Path] = field(default_factory=list[Path])
    took_ms: float | None = None
    generation: int = 0
    """Of the last restart that succeeded."""
    failure: str = ""
    echoes: int = 0
    echo_sent_s: float = 0.0
    """When the datagram of the last echo was sent, on the monotonic clock."""
    is_lost: bool = False
    counters: dict[str, int] | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    waiting: list[Hear | Withdraw] | None = field(default_factory=list[Hear | Withdraw])
    """What the peer has said before this side was opened; None from then on."""

    @property
    def path(self) -> Path | None:
        """The path in use."""
        return self.paths[-1] if self.paths else None

    def take(self, report: SessionReport) -> None:
        """Take note of what the agent said."""
        match report:
            case Candidate():
                self.candidates.append(report.line)
                self._pass_on(Hear(self.session, report.line, report.generation))
            case Withdrawn():
                self._pass_on(Withdraw(self.session, report.line, report.generation))
            case Connected():
                self.took_ms = report.took_ms
            case Restarted():
                self.generation = report.generation
            case Failed():
                self.failure = report.reason
            case PathTaken():
                self.paths.append(report.path)
            case Carried():
                self.echoes += 1
                self.echo_sent_s = report.sent_s
            case PathGone():
                self.is_lost = True
            case Closed():
                self.counters = report.counters
        for side in (self, self.peer):
            if side is not None:
                side.changed.set()

    def open(self, order: Open) -> None:
        """Open the agent, and tell it what its peer has said meanwhile."""
        waiting, self.waiting = self.waiting, None
        for each in (order, *(waiting or ())):
            self.process.tell(each)

    def hear(self, order: Hear | Withdraw) -> None:
        """Tell the agent a candidate of its peer, when it is open."""
        if self.waiting is None:
            self.process.tell(order)
        else:
            self.waiting.append(order)

    def _pass_on(self, order: Hear | Withdraw) -> None:
        peer = self.peer
        assert peer is not None
        asyncio.get_running_loop().call_later(SIGNALLING_S, peer.hear, order)


class Connect:
    """One connect between a client's and a gateway's process. A context manager that closes both agents."""

    _numbers: Iterator[int] = itertools.count(1)

    def __init__(self, client: AgentProcess, gateway: AgentProcess) -> None:
        session = next(self._numbers)
        self.client, self.gateway = Side(session, client), Side(session, gateway)
        self.client.peer, self.gateway.peer = self.gateway, self.client
        # What one side says wakes whoever waits for either.
        self.client.changed = self.gateway.changed

    async def __aenter__(self) -> Self:
        for side in (self.client, self.gateway):
            side.process.attach(side)
        return self

    async def __aexit__(self, *_: object) -> None:
        for side in (self.client, self.gateway):
            side.process.tell(Close(side.session))
        closed = await self.wait(CLOSE_S, lambda: all(side.counters is not None for side in self.sides))
        for side in self.sides:
            side.process.detach(side)
        assert closed, "an agent did not close"

    @property
    def sides(self) -> tuple[Side, Side]:
        """The client's side and the gateway's."""
        return self.client, self.gateway

    async def start(
        self,
        servers: tuple[tuple[IceServer, ...], tuple[IceServer, ...]],
        skew_s: float = 0.0,
        *,
        relay_only: bool = False,
    ) -> bool:
        """Open both agents, the gateway's so much later (earlier, if negative); return whether both connected.

        ``relay_only`` is for the client.
        """
        ours, theirs = new_username_and_password(), new_username_and_password()
        client = Open(self.client.session, "controlling", ours, theirs, servers[0], CONNECT_S, relay_only)
        gateway = Open(self.gateway.session, "controlled", theirs, ours, servers[1], CONNECT_S)
        await asyncio.gather(
            self._open_later(self.client, client, -skew_s), self._open_later(self.gateway, gateway, skew_s)
        )
        await self.wait(CONNECT_S + 1, self._is_decided)
        return all(side.took_ms is not None for side in self.sides)

    def _is_decided(self) -> bool:
        """Whether both have connected, or one cannot: the other one would only wait for it."""
        return any(side.failure for side in self.sides) or all(side.took_ms is not None for side in self.sides)

    async def wait(self, timeout_s: float, test: Callable[[], bool]) -> bool:
        """Wait until the test is true of what the agents have said; False if that takes too long."""
        try:
            async with asyncio.timeout(timeout_s):
                while not test():
                    self.client.changed.clear()
                    await self.client.changed.wait()
        except TimeoutError:
            return False
        return True

    def talk(self, interval_s: float, side: Side | None = None) -> None:
        """Have one side, the client's by default, send so often. The other one only answers."""
        side = side or self.client
        side.process.tell(Talk(side.session, interval_s))

    def hint(self) -> None:
        """Tell the client's side that its network may have changed."""
        self.client.process.tell(Hint(self.client.session))

    async def restart(self) -> bool:
        """Restart both sides, as a portal does that one of them asked; return whether both found a path."""
        generation = self.client.generation + 1
        ours, theirs = new_username_and_password(), new_username_and_password()
        await asyncio.sleep(SIGNALLING_S)  # the question's way to the portal, and the answer's to the other side
        for side, local, remote in ((self.client, ours, theirs), (self.gateway, theirs, ours)):
            side.process.tell(Restart(side.session, local, remote, generation, CONNECT_S))
        return await self.wait(
            CONNECT_S, lambda: all(side.generation == generation or side.failure for side in self.sides)
        ) and not any(side.failure for side in self.sides)

    @property
    def took_ms(self) -> float:
        """The longer of both sides' times from the begin of gathering to being connected."""
        return max(side.took_ms or 0.0 for side in self.sides)

    @property
    def is_same_pair(self) -> bool:
        """Whether both sides send on one and the same pair of addresses."""
        client, gateway = self.client, self.gateway
        return leads_to(client.path, gateway) and leads_to(gateway.path, client)

    async def _open_later(self, side: Side, order: Open, delay_s: float) -> None:
        await asyncio.sleep(max(0.0, delay_s))
        side.open(order)


def leads_to(path: Path | None, there: Side) -> bool:
    """Whether what is sent on this path arrives where the other side's path begins.

    Behind a NAT that is known by another address: one that a STUN server told (then a candidate says so), or one that
    was made for this peer alone, which nobody told: any that is no candidate.
    """
    own = there.path
    if path is None or own is None:
        return False
    if own.local_type == "relay" or path.remote == own.local:
        return path.remote == own.local
    mapped = dict(mapping for line in there.candidates if (mapping := related(line)) is not None)
    if path.remote in mapped:
        return mapped[path.remote] == own.local
    return path.remote not in {address(line) for line in there.candidates if line}


def address(line: str) -> tuple[str, int]:
    """The address of a candidate line (RFC 8839 section 5.1)."""
    words = line.split()
    return words[4], int(words[5])


def related(line: str) -> tuple[tuple[str, int], tuple[str, int]] | None:
    """The address of a reflexive candidate's line, and that of its base."""
    words = line.split()
    if "srflx" not in words:
        return None
    return address(line), (words[words.index("raddr") + 1], int(words[words.index("rport") + 1]))
