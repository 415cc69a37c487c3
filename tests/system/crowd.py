"""Clients without a device: the real protocol machines, hundreds to a process; run in the client's network.

A visitor is what a client is to the outside: a link to the portal, an ICE agent, a WireGuard session and its goodbye.
The program reads one JSON document from its standard input (who they are, and what they do), prints a line when
everybody is connected, and one about each that has left.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import resource
import secrets
import sys
import time
from array import array
from collections.abc import Callable, Sequence
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from exeunt.actors.batch.contract import OUT_BYTES_EACH, VNET_BYTES
from exeunt.actors.endings import Cause, Initiator
from exeunt.actors.ice import Callbacks, IceAgent, IceConfig, IceServer, Lost, Path
from exeunt.actors.ice.sockets import Sockets
from exeunt.actors.peer.alarm import Alarm
from exeunt.actors.peer.carried import CarriedConnection
from exeunt.actors.peer.events import Connected, Ended
from exeunt.actors.portal import messages as portal
from exeunt.actors.portal.events import LinkEvent, LinkJoined, LinkMessage
from exeunt.actors.portal.io import Link
from exeunt.actors.timing import HANDSHAKE_REPEAT_S, HANDSHAKE_S
from exeunt.actors.wireguard import Limits, PrefixedIndices, Tunnel
from exeunt.runtime.wakeups import new_event_loop

AT_ONCE: Final = 8
"""So many come at the same time."""
ONE_EVERY_S: Final = 0.08
"""What a gateway says of each newcomer is five messages: more than the portal takes of one peer that nobody asked."""
CONNECT_S: Final = 30.0


class _Room:
    """Where all visitors open what has come, one after another."""

    def __init__(self) -> None:
        self._buffer = memoryview(bytearray())

    def of(self, size: int) -> memoryview:
        """Return so many bytes at least."""
        if len(self._buffer) < size:
            self._buffer = memoryview(bytearray(size))
        return self._buffer


_ROOM: Final = _Room()


class Visitor:
    """One client: `arrive`, then `leave`, or wait until `ended` is told."""

    coalesces = False
    """Whether packets of one flow are taken as one frame; see `on_frames`."""

    def __init__(self, name: str, token: str, url: str) -> None:
        self.name = name
        self.address = ""
        """Its inner IPv4 address, once it has signed in."""
        self.ended: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()
        self._key = X25519PrivateKey.generate()
        self._connected: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._agent: IceAgent | None = None
        self._machine: CarriedConnection | None = None
        self._connection = ""
        self._alarm = Alarm(is_coarse=False)
        self._servers: tuple[IceServer, ...] = ()
        self._tasks: set[asyncio.Task[Any]] = set()
        join = portal.Join(
            name=name, external_id=name, public_key=self._key.public_key().public_bytes_raw(), version="0.1.0"
        )
        self._link = Link(url, token, join, on_event=self._on_link, rng=random.Random(name))

    async def arrive(self) -> None:
        """Sign in, and be connected to a gateway. Raises TimeoutError."""
        self._link.start()
        await asyncio.wait_for(asyncio.shield(self._connected), CONNECT_S)

    async def leave(self) -> Ended:
        """Sign out, as a client does: the portal first, then the goodbye."""
        await self._link.leave("signed_out")
        assert self._machine is not None
        self._machine.handle_close(Cause.SIGNED_OUT, Initiator.US, {}, time.monotonic())
        self._drain()
        ended = await self.ended
        await self.close()
        return ended

    async def close(self) -> None:
        """Release everything."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._agent is not None:
            await self._agent.close(0.3)
        self._alarm.cancel()
        await self._link.close()

    def new_sockets(self) -> Sockets:
        """Return what its datagrams come and go by."""
        return Sockets()

    # --- the inner packets ---

    def send_packet(self, packet: bytes) -> None:
        """Send an inner packet."""
        assert self._machine is not None
        self._machine.handle_packet(packet, time.monotonic())
        self._drain()

    def on_packet(self, packet: bytes) -> None:
        """An inner packet has come. For those who send some."""

    def on_frames(self, out: memoryview, frames: Sequence[tuple[int, int, int]]) -> None:
        """Frames have come; they are in `out`, which is used again. See `Connection.handle_datagrams`."""
        for start, end, _ in frames:
            self.on_packet(bytes(out[start + VNET_BYTES : end]))

    # --- the portal ---

    def _on_link(self, event: LinkEvent) -> None:
        match event:
            case LinkJoined(joined=joined):
                self.address = joined.address_ipv4
                self._servers = tuple(
                    IceServer(kind="stun", host=relay.host, port=relay.port) for relay in joined.relays
                )
                if self._machine is None:
                    self._link.send(portal.RequestAuthorization(resource_id=joined.resources[0].id))
            case LinkMessage(message=portal.AuthorizationCreated() as created):
                self._begin(created)
            case LinkMessage(message=portal.IceCandidates(candidates=candidates, end=end)) if self._agent is not None:
                for candidate in candidates:
                    self._agent.add_remote_candidate(candidate)
                if end:
                    self._agent.add_remote_candidate(None)
            case _:
                pass

    def _begin(self, created: portal.AuthorizationCreated) -> None:
        indices = PrefixedIndices(secrets.randbits(24))
        tunnel = Tunnel(
            private_key=self._key.private_bytes_raw(),
            peer_public_key=created.gateway_public_key,
            preshared_key=created.preshared_key,
            initiator=True,
            allocate_index=indices,
            rng=random.Random(self.name),
            limits=Limits(rekey_timeout_s=HANDSHAKE_REPEAT_S, rekey_attempt_time_s=HANDSHAKE_S),
        )
        self._connection = created.connection
        self._machine = CarriedConnection(tunnel, initiator=True, identifier=lambda: os.urandom(8))
        config = IceConfig(
            role="controlling",
            local_username=created.local_ice.username,
            local_password=created.local_ice.password,
            remote_username=created.remote_ice.username,
            remote_password=created.remote_ice.password,
            servers=self._servers,
        )
        self._agent = IceAgent(config, self._callbacks(), sockets=self.new_sockets())
        self._agent.claim_indices(indices.prefix)
        self._soon(self._agent.gather())
        self._soon(self._agent.connect(CONNECT_S))

    def _callbacks(self) -> Callbacks:
        return Callbacks(
            on_candidate=self._on_candidate,
            on_datagrams=self._on_datagrams,
            on_path=self._on_path,
            on_lost=self._on_lost,
        )

    def _on_candidate(self, candidate: str, *_: Any) -> None:
        candidates = (candidate,) if candidate else ()
        self._link.send(portal.IceCandidates(connection=self._connection, candidates=candidates, end=not candidate))

    # --- the path ---

    def _on_path(self, path: Path) -> None:
        assert self._machine is not None
        self._machine.handle_path(path.rtt_ms, time.monotonic())
        self._drain()

    def _on_lost(self, lost: Lost) -> None:
        assert self._machine is not None
        self._machine.handle_lost(Cause.NETWORK_LOST, {"ice": lost.reason}, lost.last_seen_s_ago, time.monotonic())
        self._drain()

    def _on_datagrams(self, buffer: memoryview, spans: array[int], _ecn: int) -> None:
        assert self._machine is not None
        assert self._agent is not None
        now = time.monotonic()
        out = _ROOM.of(spans[-2] + spans[-1] + OUT_BYTES_EACH * (len(spans) // 2))
        frames = self._machine.handle_datagrams(buffer, spans, out, now, coalesce=self.coalesces)
        if self._machine.tunnel.last_received_at == now:
            self._agent.note_alive()
        self.on_frames(out, frames)
        self._drain()

    def _drain(self) -> None:
        machine, agent = self._machine, self._agent
        assert machine is not None
        assert agent is not None
        while (datagram := machine.poll_transmit() or machine.path_mtu.poll_transmit()) is not None:
            agent.send(datagram)
        while (event := machine.poll_event()) is not None:
            if isinstance(event, Connected) and not self._connected.done():
                self._connected.set_result(None)
            elif isinstance(event, Ended) and not self.ended.done():
                self.ended.set_result(event)
        timeout = machine.poll_timeout()
        if timeout is not None:
            self._alarm.set(asyncio.get_running_loop(), timeout, time.monotonic(), self._on_timer)

    def _on_timer(self) -> None:
        assert self._machine is not None
        assert self._agent is not None
        if self._agent.last_alive is not None:  # as a client does: else silence would have it probe
            self._machine.handle_alive(self._agent.last_alive)
        self._machine.handle_timeout(time.monotonic())
        self._drain()

    def _soon(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)


async def one_after_another(visitors: list[Callable[[], Visitor]]) -> None:
    """Each comes and signs out before the next one comes; a line about each."""
    for visitor in visitors:
        one = visitor()
        began = time.monotonic()
        await one.arrive()
        arrived = time.monotonic()
        ended = await one.leave()
        say(
            cause=ended.cause,
            acknowledged=ended.acknowledged,
            connect_ms=round((arrived - began) * 1000, 1),
            goodbye_ms=ended.evidence.get("acknowledged_ms"),
        )


async def all_together(visitors: list[Callable[[], Visitor]]) -> None:
    """All come, and wait until they are told goodbye; a line when all are there, and one about each that was told."""
    present: list[Visitor] = []
    turn = asyncio.Semaphore(AT_ONCE)

    async def arrive(visitor: Callable[[], Visitor]) -> None:
        async with turn:
            one = visitor()
            await one.arrive()
            present.append(one)
            await asyncio.sleep(ONE_EVERY_S * AT_ONCE)

    await asyncio.gather(*(arrive(visitor) for visitor in visitors))
    say(connected=len(present))
    for one in present:
        ended = await one.ended
        say(cause=ended.cause, initiated_by=ended.initiated_by, acknowledged=ended.acknowledged)
    await asyncio.sleep(2.0)  # who was told lingers, to acknowledge repetitions
    await asyncio.gather(*(one.close() for one in present))


def say(**facts: Any) -> None:
    print(json.dumps(facts), flush=True)


def main() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # each has a websocket, and sockets for its paths
    task = json.loads(sys.stdin.readline())
    play = {"one_after_another": one_after_another, "all_together": all_together}[task["play"]]
    url = task["url"]

    def visitor(name: str, token: str) -> Callable[[], Visitor]:
        return lambda: Visitor(name, token, url)

    visitors = [visitor(name, token) for name, token in task["visitors"]]
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(play(visitors))


if __name__ == "__main__":
    main()
