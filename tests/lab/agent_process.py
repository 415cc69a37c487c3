"""A program with ICE agents in it, one for each session that it is told to open. See `protocol`.

``python -m tests.lab.agent_process``, started in the namespace of a host and told what to do on stdin; it ends with it.
"""

from __future__ import annotations

import asyncio
import struct
import sys
import time

import msgspec

from exeunt.actors.ice import Callbacks, Credentials, IceAgent, IceConfig, Lost, NeverConnected, Path, one_by_one
from exeunt.runtime.wakeups import new_event_loop

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
    Talk,
    Withdraw,
    Withdrawn,
)

CLOSE_S = 2.0
DATAGRAM = struct.Struct("<4sIQ")
"""Like a WireGuard transport message: type, receiver index, counter. The index is a session's number, which
both sides use, and 8 bits that say what it is."""
TYPE, QUESTION, ANSWER = b"\x04\0\0\0", 1, 2


class Session:
    """One agent and what it is for."""

    def __init__(self, order: Open, report: Reporter) -> None:
        self._id = order.session
        self._report = report
        self._timeout_s = order.timeout_s
        self._talking: asyncio.Task[None] | None = None
        self._restarting: set[asyncio.Task[None]] = set()
        config = IceConfig(
            role=order.role,
            local_username=order.local[0],
            local_password=order.local[1],
            remote_username=order.remote[0],
            remote_password=order.remote[1],
            servers=order.servers,
            relay_only=order.relay_only,
        )
        callbacks = Callbacks(
            on_candidate=self._found,
            on_withdrawn=self._withdrawn,
            on_datagrams=one_by_one(self._received),
            on_path=self._moved,
            on_lost=self._lost,
        )
        self.agent = IceAgent(config, callbacks)
        self.agent.claim_indices(self._id)
        self._connecting = asyncio.create_task(self._connect())

    async def _connect(self) -> None:
        began = time.monotonic()
        gathering = asyncio.create_task(self.agent.gather())
        try:
            await self.agent.connect(self._timeout_s)
        except NeverConnected as error:
            self._report(Failed(self._id, error.reason))
        else:
            self._report(Connected(self._id, (time.monotonic() - began) * 1000))
        await gathering

    def obey(self, order: Hear | Withdraw | Talk | Hint | Restart) -> None:
        """Do what is asked while the agent is open."""
        match order:
            case Hear():
                self.agent.add_remote_candidate(order.line, order.generation)
            case Withdraw():
                self.agent.withdraw_remote_candidate(order.line, order.generation)
            case Talk():
                self._talking = asyncio.create_task(self._talk(order.interval_s))
            case Hint():
                self.agent.hint()
            case Restart():
                self._restarting.add(asyncio.create_task(self._restart(order)))

    async def _restart(self, order: Restart) -> None:
        began = time.monotonic()
        credentials = Credentials(
            local_username=order.local[0],
            local_password=order.local[1],
            remote_username=order.remote[0],
            remote_password=order.remote[1],
        )
        try:
            await self.agent.restart(credentials, order.timeout_s, order.generation)
        except NeverConnected as error:
            self._report(Failed(self._id, error.reason))
        else:
            self._report(Restarted(self._id, order.generation, (time.monotonic() - began) * 1000))

    async def _talk(self, interval_s: float) -> None:
        due = time.monotonic()
        while True:
            self.agent.send(DATAGRAM.pack(TYPE, self._id << 8 | QUESTION, time.monotonic_ns()))
            due += interval_s  # a pause each time would fall behind, the more the busier the machine is
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def close(self) -> None:
        """Close the agent."""
        tasks = [task for task in (self._connecting, self._talking, *self._restarting) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.agent.close(CLOSE_S)
        self._report(Closed(self._id, dict(self.agent.counters)))

    def _found(self, line: str, generation: int) -> None:
        self._report(Candidate(self._id, line, generation))

    def _withdrawn(self, line: str, generation: int) -> None:
        self._report(Withdrawn(self._id, line, generation))

    def _received(self, datagram: bytes) -> None:
        _, index, sent_ns = DATAGRAM.unpack(datagram)
        self.agent.note_alive()
        if index & 0xFF == QUESTION:
            self.agent.send(DATAGRAM.pack(TYPE, self._id << 8 | ANSWER, sent_ns))
        else:
            self._report(Carried(self._id, sent_ns / 1e9))

    def _moved(self, path: Path) -> None:
        self._report(PathTaken(self._id, path))

    def _lost(self, lost: Lost) -> None:
        self._report(PathGone(self._id, lost))


class Reporter:
    """Writes reports to stdout."""

    def __init__(self) -> None:
        self._encoder = msgspec.json.Encoder()

    def __call__(self, report: Report) -> None:
        sys.stdout.buffer.write(self._encoder.encode(report) + b"\n")
        sys.stdout.buffer.flush()


async def main() -> None:
    """Obey until stdin ends."""
    orders: asyncio.StreamReader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    report, decoder = Reporter(), msgspec.json.Decoder(Order)
    sessions: dict[int, Session] = {}
    closing: set[asyncio.Task[None]] = set()
    report(Ready())
    while line := await orders.readline():
        order = decoder.decode(line)
        if isinstance(order, Open):
            sessions[order.session] = Session(order, report)
            continue
        session = sessions.get(order.session)
        if session is None:  # closed meanwhile: a candidate that came late
            continue
        if isinstance(order, Close):
            del sessions[order.session]
            task = asyncio.create_task(session.close())
            closing.add(task)
            task.add_done_callback(closing.discard)
        else:
            session.obey(order)
    for session in sessions.values():
        await session.close()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(main())
