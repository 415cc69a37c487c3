"""Two connections with real agents and sockets: ordinary packets go by their lanes, and only as long as they may."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.actors.peer.test_actor import Side
from tests.actors.peer.test_freed import connected, on_loopback, told

from exeunt.actors.batch import VNET_BYTES
from exeunt.actors.batch.choice import choose
from exeunt.actors.endings import Cause
from exeunt.actors.peer.messages import Close, PeerEnded, SetNetworks
from exeunt.runtime.host import stop_all

__all__ = ["on_loopback"]

pytestmark = pytest.mark.skipif(choose().lanes is None, reason="no kernel with lanes")


class End:
    """One of them, and the host's side of its device."""

    def __init__(self, side: Side) -> None:
        self.side = side
        self.host, device = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.host.setblocking(False)
        side.pump.set_device(device.detach())
        self.calls: list[str] = []
        for name in ("handle_frames", "handle_datagrams"):
            self._count(name)

    def _count(self, name: str) -> None:
        machine: Any = self.side.peer._machine
        call = getattr(machine, name)

        def counted(*args: Any, **named: Any) -> Any:
            self.calls.append(name)
            return call(*args, **named)

        setattr(machine, name, counted)

    @property
    def has_lane(self) -> bool:
        lane = self.side.peer._lane
        return lane is not None and lane._lane is not None

    async def send(self, packet: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.host, packet)

    async def come(self) -> bytes:
        async with asyncio.timeout(5):
            return await asyncio.get_running_loop().sock_recv(self.host, 70_000)


def packet(number: int, *, source: str = "10.0.0.1", size: int = 100) -> bytes:
    addresses = socket.inet_aton(source) + socket.inet_aton("10.0.0.2")
    header = struct.pack("!BBHHHBBH", 0x45, 0, 28 + size, number, 0, 64, 17, 0)
    return header + addresses + struct.pack("!HHHH", 1, 2, 8 + size, 0) + bytes(size)


async def to_and_fro(one: End, other: End, number: int = 0) -> None:
    for sender, receiver in ((one, other), (other, one)):
        await sender.send(packet(number))
        assert await receiver.come() == packet(number)


@pytest.fixture
async def ends(tmp_path: Path, on_loopback: None) -> AsyncIterator[tuple[End, End]]:
    client, gateway = await connected(tmp_path)
    ends = End(client), End(gateway)
    for number in range(2):  # with the first, both make their keys; the second is ordinary
        await to_and_fro(*ends, number)
    yield ends
    for one in ends:
        await stop_all(one.side.node, "shutdown", each_s=2)
        one.host.close()


async def test_ordinary_packets_come_by_no_machine_and_are_known_to_it(ends: tuple[End, End]) -> None:
    for one in ends:
        assert one.has_lane
        one.calls.clear()
    before = [(one.side.peer._machine.tunnel.rx_bytes, one.side.peer._machine.tunnel.tx_bytes) for one in ends]
    for number in range(10):
        await to_and_fro(*ends, number)
    for one, (received, sent) in zip(ends, before, strict=True):
        peer = one.side.peer
        peer._keep_lane()
        tunnel = peer._machine.tunnel
        carried = 10 * (128 + 32)
        assert (tunnel.rx_bytes - received) // carried == (tunnel.tx_bytes - sent) // carried == 1
        assert one.calls == []
        assert tunnel.last_received_at is not None
        assert peer.agent.last_alive is not None
        assert peer.agent.last_alive >= tunnel.last_received_at


async def test_a_spoofed_packet_is_dropped_and_the_next_one_is_not(ends: tuple[End, End]) -> None:
    client, gateway = ends
    await client.send(packet(5, source="192.0.2.1"))
    await client.send(packet(6))
    assert await gateway.come() == packet(6)
    assert gateway.side.pump.counters["spoofed_inbound"] == 1


async def test_networks_that_are_taken_away_are_so_at_once(ends: tuple[End, End]) -> None:
    client, gateway = ends
    gateway.side.ref.tell(SetNetworks(("192.0.2.0/24",)))
    await gateway.side.ref.ask(SetNetworks(("192.0.2.0/24",)))
    await client.send(packet(5))
    await client.send(packet(6, source="192.0.2.1"))
    assert await gateway.come() == packet(6, source="192.0.2.1")
    assert gateway.side.pump.counters["spoofed_inbound"] == 1


async def test_nothing_goes_by_once_it_closes(ends: tuple[End, End]) -> None:
    client, gateway = ends
    answer = await client.side.ref.ask(Close(Cause.SIGNED_OUT))
    assert answer.ending.acknowledged
    await told(gateway.side, PeerEnded)
    for one in ends:
        crossing = one.side.pump.crossing
        assert crossing is not None
        assert not crossing._lane_of
        assert not one.has_lane


async def test_another_session_has_another_lane(ends: tuple[End, End]) -> None:
    client, gateway = ends
    former = [one.side.peer._machine.tunnel.current for one in ends]
    client.side.peer._machine.tunnel.connect(client.side.peer._now())
    client.side.peer._machine._drain_tunnel(client.side.peer._now())
    client.side.peer._drain()
    async with asyncio.timeout(5):
        while any(one.side.peer._machine.tunnel.current in former for one in ends):
            await to_and_fro(client, gateway)
    for number in range(2):
        await to_and_fro(client, gateway, number)
    for one, session in zip(ends, former, strict=True):
        assert one.has_lane
        assert one.side.peer._machine.tunnel.current is not session
        one.calls.clear()
    await to_and_fro(client, gateway, 4)
    assert client.calls == gateway.calls == []


async def test_many_at_once_are_all_carried(ends: tuple[End, End]) -> None:
    client, gateway = ends
    for number in range(100):
        await client.send(packet(number, size=100 + number % 3))
    came = [await gateway.come() for _ in range(100)]
    assert came == [packet(number, size=100 + number % 3) for number in range(100)]
    assert len(came[0]) == len(packet(0)) > VNET_BYTES


async def test_the_session_of_an_idle_connection_rests_beside_its_lane(ends: tuple[End, End]) -> None:
    """The gateway's alone: the client asks. What goes by the lane wakes it, and the peer's next check is Python's."""
    client, gateway = ends
    sessions: list[Any] = [one.side.peer.agent._current for one in ends]  # type: ignore[attr-defined]
    async with asyncio.timeout(8):
        while sessions[1]._answerer is None:  # noqa: ASYNC110 - real sockets, and nothing is called when it rests
            await asyncio.sleep(0.01)
    assert sessions[0]._answerer is None
    assert gateway.has_lane
    await client.send(packet(3))
    assert await gateway.come() == packet(3)
    gateway.side.peer._keep_lane()  # reads the books
    assert sessions[1]._answerer is None
    assert sessions[1]._timer is not None
    received_at = gateway.side.peer._machine.tunnel.last_received_at
    assert received_at is not None
    assert sessions[1].last_alive >= received_at
