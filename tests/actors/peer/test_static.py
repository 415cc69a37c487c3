"""The static peer's actor on real sockets, against a plain tunnel on a socket of its own, which is moved at will."""

# pyright: reportPrivateUsage=false

import asyncio
import random
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.actors.notes import Notes

from exeunt.actors.device.actor import LISTEN_PORT
from exeunt.actors.device.pump import Pump
from exeunt.actors.endings import Cause, Ending, Initiator
from exeunt.actors.messages import MESSAGES
from exeunt.actors.peer import static
from exeunt.actors.peer.messages import (
    AddCandidates,
    Close,
    DescribePeer,
    Hint,
    Moved,
    PeerConnected,
    PeerDescription,
    PeerEnded,
    Ping,
    SetNetworks,
    SetServers,
)
from exeunt.actors.peer.static import StaticPeer
from exeunt.actors.peer.static_messages import StaticPeerConfig
from exeunt.actors.peer.succession import shared_sockets
from exeunt.actors.wireguard import PrefixedIndices, Tunnel
from exeunt.actors.wireguard.testing import public_key
from exeunt.runtime import Actor, ActorDead, Message, Refused, receive
from exeunt.runtime.codec import Codec
from exeunt.runtime.host import stop_all
from exeunt.runtime.inheritance import HAND_OVER
from exeunt.runtime.messages import MESSAGES as RUNTIME_MESSAGES
from exeunt.runtime.node import Node

OURS = b"\x22" * 32
INNER, OUTER = "100.64.0.11", "10.20.0.10"
LIMIT_S = 5.0


def packet(source: str, destination: str, fill: int = 0) -> bytes:
    """An IPv4 packet of an experimental protocol (RFC 3692)."""
    header = bytes([0x45, 0, 0, 60, 0, 0, 0, 0, 64, 253, 0, 0])
    return header + socket.inet_aton(source) + socket.inet_aton(destination) + bytes([fill]) * 40


class Owner(Actor):
    def __init__(self) -> None:
        super().__init__()
        self.told: asyncio.Queue[Message] = asyncio.Queue()

    @receive(PeerConnected, PeerEnded)
    def on_told(self, message: Message) -> None:
        self.told.put_nowait(message)

    async def hears(self, kind: type[Any]) -> Any:
        message = await asyncio.wait_for(self.told.get(), LIMIT_S)
        assert isinstance(message, kind)
        return message


def line_of_its_own() -> socket.socket:
    line = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    line.bind(("127.0.0.1", 0))
    line.setblocking(False)
    return line


class Plain:
    """Somebody who speaks WireGuard and nothing else."""

    def __init__(self, private: bytes, port: int, *, preshared_key: bytes = bytes(32)) -> None:
        self.private = private
        self.tunnel = Tunnel(
            private_key=private,
            peer_public_key=public_key(OURS),
            preshared_key=preshared_key,
            initiator=True,
            allocate_index=PrefixedIndices(random.getrandbits(24)),
            rng=random.Random(1),
        )
        self._there = ("127.0.0.1", port)
        self._loop = asyncio.get_running_loop()
        self.line = line_of_its_own()

    def move(self) -> None:
        """Go on at another port."""
        self.line.close()
        self.line = line_of_its_own()

    @property
    def endpoint(self) -> str:
        host, port = self.line.getsockname()
        return f"{host}:{port}"

    def send(self, datagram: bytes) -> None:
        self.line.sendto(datagram, self._there)

    async def knock(self) -> None:
        """Shake hands."""
        self.tunnel.connect(self._loop.time())
        self.transmit()
        await self.hear()

    def transmit(self) -> None:
        while (datagram := self.tunnel.poll_transmit()) is not None:
            self.send(datagram)

    async def hear(self) -> bytes | None:
        """Take one datagram, and answer it; return the packet in it."""
        datagram = await asyncio.wait_for(self._loop.sock_recv(self.line, 65_535), LIMIT_S)
        found = self.tunnel.handle_datagram(datagram, self._loop.time())
        self.transmit()
        return found

    def say(self, inner: bytes) -> None:
        datagram = self.tunnel.encapsulate(inner, self._loop.time())
        assert datagram is not None
        self.send(datagram)


class House:
    """A gateway's worker: sockets with a port, a device that we hold the other end of, and an owner."""

    def __init__(self, directory: Path, name: str = "gateway") -> None:
        self.name = name
        self.file = directory / "endings.jsonl"
        self.node = Node(name, "peers-1", codec=Codec([*RUNTIME_MESSAGES, *MESSAGES]))
        self.notes = self.node.deposits = Notes()
        self.pump = self.node.resources["pump"] = Pump(self.node.loop, on_intent=lambda _resource: None)
        self.kernel, device = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.kernel.setblocking(False)
        self.pump.set_device(device.detach())
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.node.resources[LISTEN_PORT] = self.port
        self.owner = Owner()
        self.node.start(self.owner, "owner")
        self.plains: list[Plain] = []

    def plain(self, number: int = 1, **options: Any) -> Plain:
        made = Plain(bytes([number]) * 32, self.port, **options)
        self.plains.append(made)
        return made

    async def expect(self, plain: Plain, name: str = "router", **changes: Any) -> StaticPeer:
        config = StaticPeerConfig(
            connection=f"static-{name}",
            peer=name,
            private_key=OURS,
            peer_public_key=public_key(plain.private),
            networks=(f"{INNER}/32",),
            owner=f"{self.name}/peers-1/owner",
            endings_file=str(self.file),
        )
        peer = StaticPeer(**{**msgspec.structs.asdict(config), **changes})
        self.node.start(peer, f"peer-static-{name}")
        await peer.started
        return peer

    def ref(self, name: str = "router") -> Any:
        return self.node.local(f"peer-static-{name}")

    async def describe(self) -> PeerDescription:
        answer: PeerDescription = await self.ref().ask(DescribePeer())
        return answer

    async def from_tunnel(self) -> bytes:
        return await asyncio.wait_for(self.node.loop.sock_recv(self.kernel, 65_535), LIMIT_S)

    def endings(self) -> list[Ending]:
        return [msgspec.json.decode(line, type=Ending) for line in self.file.read_bytes().splitlines()]

    async def close(self) -> None:
        await stop_all(self.node, "shutdown", each_s=2)
        self.pump.close()
        self.kernel.close()
        for plain in self.plains:
            plain.line.close()


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    made = House(tmp_path)
    yield made
    await made.close()
    assert shared_sockets(made.node).descriptors() == {}


async def test_it_is_let_in_carried_followed_and_told_of_to_people(house: House) -> None:
    plain = house.plain(preshared_key=b"p" * 32)
    await house.expect(plain, preshared_key=b"p" * 32)
    assert ((await house.describe()).state, (await house.describe()).endpoint) == ("connecting", None)
    await plain.knock()
    assert (await house.owner.hears(PeerConnected)).path == "wireguard"
    plain.say(packet(INNER, OUTER, 1))
    assert await house.from_tunnel() == packet(INNER, OUTER, 1)
    house.kernel.send(packet(OUTER, INNER, 2))
    assert await plain.hear() == packet(OUTER, INNER, 2)
    before = await house.describe()
    assert (before.state, before.path, before.endpoint) == ("established", "wireguard", plain.endpoint)

    plain.move()
    house.kernel.send(packet(OUTER, INNER, 3))  # goes where it was
    plain.say(packet(INNER, OUTER, 4))
    assert await house.from_tunnel() == packet(INNER, OUTER, 4)
    house.kernel.send(packet(OUTER, INNER, 5))
    assert await plain.hear() == packet(OUTER, INNER, 5)
    after = await house.describe()
    assert (after.endpoint, after.handshakes) == (plain.endpoint, 1)


async def test_whoever_sends_more_than_every_path_takes_is_told_so(house: House) -> None:
    plain = house.plain()
    await house.expect(plain)
    await plain.knock()
    long = bytearray(packet(OUTER, INNER, 1) + bytes(1400))
    long[2:4] = len(long).to_bytes(2, "big")
    long[6] = 0x40  # it may not be fragmented
    house.kernel.send(long)
    error = await house.from_tunnel()
    assert (error[9], error[20:22], error[26:28]) == (1, b"\x03\x04", (1280).to_bytes(2, "big"))
    house.kernel.send(packet(OUTER, INNER, 2))
    assert await plain.hear() == packet(OUTER, INNER, 2), "nothing else went before it"


async def test_each_peer_has_its_own_address_and_no_other(house: House) -> None:
    router, phone = house.plain(1), house.plain(2)
    await house.expect(router)
    await house.expect(phone, "phone", networks=("100.64.0.12/32",))
    await router.knock()
    await phone.knock()
    router.say(packet("100.64.0.12", OUTER))
    phone.say(packet("100.64.0.12", OUTER, 7))
    assert await house.from_tunnel() == packet("100.64.0.12", OUTER, 7)
    house.kernel.send(packet(OUTER, "100.64.0.12", 8))
    assert await phone.hear() == packet(OUTER, "100.64.0.12", 8)
    router.say(packet(INNER, OUTER, 9))
    assert await house.from_tunnel() == packet(INNER, OUTER, 9)
    assert house.pump.counters["spoofed_inbound"] == 1


async def test_who_is_removed_is_gone_at_once_and_a_stranger(house: House) -> None:
    plain = house.plain()
    other = house.plain(2)
    await house.expect(plain)
    await house.expect(other, "other", networks=("100.64.0.12/32",))
    await plain.knock()
    await other.knock()
    answer = await house.ref().ask(Close(Cause.ACCESS_REVOKED, Initiator.PORTAL))
    plain.say(packet(INNER, OUTER, 1))
    plain.tunnel.handle_timeout(plain._loop.time() + 20)
    plain.transmit()  # an initiation
    other.say(packet("100.64.0.12", OUTER, 2))
    assert await house.from_tunnel() == packet("100.64.0.12", OUTER, 2), "what was sent before has not arrived"
    with pytest.raises(BlockingIOError):
        plain.line.recv(100)
    (ending,) = house.endings()
    assert answer.ending == ending
    assert (ending.cause, ending.initiated_by, ending.acknowledged) == (Cause.ACCESS_REVOKED, Initiator.PORTAL, None)
    assert (ending.path, ending.side, ending.rx_bytes > 0) == ("wireguard", "gateway", True)
    with pytest.raises((ActorDead, Refused)):
        await house.describe()


async def test_a_successor_goes_on_with_session_address_and_port(house: House, tmp_path: Path) -> None:
    plain = house.plain()
    await house.expect(plain)
    await plain.knock()
    await house.owner.hears(PeerConnected)
    house.ref().stop(HAND_OVER)
    heir = House(tmp_path)
    heir.node.deposits = house.notes
    heir.node.resources[LISTEN_PORT] = house.port
    try:
        await asyncio.wait_for(house.node.actors["peer-static-router"].until_ended(), LIMIT_S)
        assert not house.file.exists()
        await heir.expect(plain, inherits=True)
        heir.kernel.send(packet(OUTER, INNER, 1))
        assert await plain.hear() == packet(OUTER, INNER, 1), "it is known where the peer is"
        plain.say(packet(INNER, OUTER, 2))
        assert await heir.from_tunnel() == packet(INNER, OUTER, 2)
        assert (await heir.describe()).handshakes == 0
    finally:
        await heir.close()


async def test_what_was_not_left_cannot_be_taken_over(house: House) -> None:
    with pytest.raises(ActorDead):
        await house.expect(house.plain(), inherits=True)


async def test_without_its_port_it_does_not_start(house: House) -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as there,
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as t6,
    ):
        t6.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        there.bind(("0.0.0.0", house.port))
        t6.bind(("::", house.port))
        with pytest.raises(ActorDead, match="port"):
            await house.expect(house.plain())
    assert not house.file.exists()


async def test_one_that_can_be_called_is_called(house: House) -> None:
    plain = house.plain()
    await house.expect(plain, endpoint=plain.endpoint)
    await plain.hear()
    await plain.hear()  # the keepalive that confirms
    await house.owner.hears(PeerConnected)
    plain.say(packet(INNER, OUTER, 1))
    assert await house.from_tunnel() == packet(INNER, OUTER, 1)


async def test_a_name_that_cannot_be_looked_up_is_tried_again(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = house.plain()
    asked: list[str] = []

    async def resolve(host: str, port: int) -> list[tuple[str, int]]:
        asked.append(host)
        if len(asked) == 1:
            raise OSError("no such name")
        return [("127.0.0.1", port)]

    monkeypatch.setattr(static, "resolve", resolve)
    monkeypatch.setattr(static, "RESOLVE_AGAIN_S", 0.0)
    await house.expect(plain, endpoint=f"router.example:{plain.line.getsockname()[1]}")
    await plain.hear()
    assert asked == ["router.example"] * 2


async def test_what_is_said_of_ice_is_not_for_it_and_a_ping_is_refused(house: House) -> None:
    plain = house.plain()
    await house.expect(plain)
    for message in (AddCandidates(("candidate:1",)), Hint("gone?"), SetServers(()), Moved("wifi")):
        house.ref().tell(message)
    with pytest.raises(Refused, match="plain WireGuard"):
        await house.ref().ask(Ping())
    house.ref().tell(SetNetworks(("100.64.0.77/32",)))
    await plain.knock()
    plain.say(packet("100.64.0.77", OUTER, 1))
    assert await house.from_tunnel() == packet("100.64.0.77", OUTER, 1)


def stopped(house: House, reason: str) -> None:
    house.ref().stop(reason)


def left_by_its_owner(house: House, reason: str) -> None:
    house.node.local("owner").stop(reason)


@pytest.mark.parametrize(
    ("end", "reason", "cause"),
    [
        (stopped, "shutdown", Cause.SHUTTING_DOWN),
        (stopped, "supervisor_died", Cause.SUPERVISOR_DIED),
        (left_by_its_owner, "normal", Cause.SHUTTING_DOWN),
    ],
)
async def test_however_it_is_ended_there_is_one_record(
    house: House, end: Callable[[House, str], None], reason: str, cause: Cause
) -> None:
    peer = await house.expect(house.plain())
    end(house, reason)
    await asyncio.wait_for(peer.until_ended(), LIMIT_S)
    assert [one.cause for one in house.endings()] == [cause]
