"""Pairs of agents, and a TURN server on loopback, small enough to read, to test the relay client without coturn."""

import asyncio
import gc
import hashlib
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from aioice import stun
from tests.actors.ice.sides import MakePair, Pair, Side, config_for, new_credentials

USERNAME, PASSWORD, REALM = "exeunt", "a relay secret", "test"
Addr = tuple[str, int]


@dataclass
class Allocation(asyncio.DatagramProtocol):
    server: "TurnServer"
    client: Addr
    channels: dict[int, Addr] = field(default_factory=dict[int, Addr])
    transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        if self.server.is_mute:
            return
        for number, peer in self.channels.items():
            if peer == addr[:2] and self.server.transport is not None:
                self.server.transport.sendto(struct.pack("!HH", number, len(data)) + data, self.client)
                return
        self.server.refused += 1


@dataclass
class TurnServer(asyncio.DatagramProtocol):
    """RFC 8656 over UDP: Allocate, Refresh, ChannelBind, ChannelData, long-term credentials."""

    transport: asyncio.DatagramTransport | None = None
    allocations: dict[Addr, Allocation] = field(default_factory=dict[Addr, Allocation])
    requests: list[tuple[str, int]] = field(default_factory=list[tuple[str, int]])
    """Method and, for a Refresh, the lifetime asked for."""
    refused: int = 0
    is_mute: bool = False
    """It does nothing any more, and relays nothing."""
    is_unseeing: bool = False
    """It answers no Binding requests."""
    is_tacit: bool = False
    """It allocates, and its answer gets lost."""
    loses: int = 0
    """So many Refresh requests get lost on the way here."""
    delay_s: float = 0.0
    mapped: Addr | None = None
    """What a NAT makes of whoever asks; None: there is none."""

    @property
    def address(self) -> Addr:
        assert self.transport is not None
        host, port = self.transport.get_extra_info("sockname")[:2]
        return host, port

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        if self.delay_s:
            asyncio.get_running_loop().call_later(self.delay_s, self.take, data, addr)
        else:
            self.take(data, addr)

    def take(self, data: bytes, addr: tuple[Any, ...]) -> None:
        client: Addr = (addr[0], addr[1])
        if self.is_mute:
            return
        if data[0] & 0xC0 == 0x40:
            number, length = struct.unpack("!HH", data[:4])
            allocation = self.allocations.get(client)
            if allocation is not None and allocation.transport is not None and number in allocation.channels:
                allocation.transport.sendto(data[4 : 4 + length], allocation.channels[number])
            return
        request = stun.parse_message(data)
        if self.loses and request.message_method is stun.Method.REFRESH:
            self.loses -= 1
            return
        self.requests.append((request.message_method.name, request.attributes.get("LIFETIME", -1)))
        if request.message_method is stun.Method.BINDING and self.is_unseeing:
            return
        if request.message_method is stun.Method.BINDING:
            self._answer(request, client, {"XOR-MAPPED-ADDRESS": self.mapped or client}, signed=False)
        elif not request.check_message_integrity(self._key):
            attributes = {"ERROR-CODE": (401, "Unauthorized"), "REALM": REALM, "NONCE": b"nonce"}
            self._answer(request, client, attributes, signed=False, kind=stun.Class.ERROR)
        elif request.message_method is stun.Method.ALLOCATE:
            asyncio.ensure_future(self._allocate(request, client))  # noqa: RUF006
        elif request.message_method is stun.Method.REFRESH:
            if request.attributes["LIFETIME"] == 0:
                allocation = self.allocations.pop(client)
                assert allocation.transport is not None
                allocation.transport.close()
            self._answer(request, client, {"LIFETIME": request.attributes["LIFETIME"]})
        elif request.message_method is stun.Method.CHANNEL_BIND:
            peer = request.attributes["XOR-PEER-ADDRESS"]
            self.allocations[client].channels[request.attributes["CHANNEL-NUMBER"]] = peer
            self._answer(request, client, {})

    async def _allocate(self, request: stun.Message, client: Addr) -> None:
        allocation = Allocation(self, client)
        await asyncio.get_running_loop().create_datagram_endpoint(lambda: allocation, local_addr=("127.0.0.1", 0))
        assert allocation.transport is not None
        self.allocations[client] = allocation
        relayed = allocation.transport.get_extra_info("sockname")
        if self.is_tacit:
            return
        self._answer(
            request,
            client,
            {"XOR-RELAYED-ADDRESS": relayed, "XOR-MAPPED-ADDRESS": self.mapped or client, "LIFETIME": 600},
        )

    def _answer(
        self,
        request: stun.Message,
        client: Addr,
        attributes: dict[str, Any],
        *,
        signed: bool = True,
        kind: stun.Class = stun.Class.RESPONSE,
    ) -> None:
        answer = stun.Message(request.message_method, kind, request.transaction_id, attributes)
        if signed:
            answer.add_message_integrity(self._key)
        assert self.transport is not None
        self.transport.sendto(bytes(answer), client)

    @property
    def _key(self) -> bytes:
        return hashlib.md5(f"{USERNAME}:{REALM}:{PASSWORD}".encode()).digest()

    def close(self) -> None:
        for allocation in self.allocations.values():
            if allocation.transport is not None:
                allocation.transport.close()
        if self.transport is not None:
            self.transport.close()


@pytest.fixture
async def turn_servers() -> AsyncIterator[list[TurnServer]]:
    loop = asyncio.get_running_loop()
    servers = [(await loop.create_datagram_endpoint(TurnServer, local_addr=("127.0.0.1", 0)))[1] for _ in range(2)]
    yield servers
    for server in servers:
        server.close()
    await asyncio.sleep(0)


@pytest.fixture
def turn_server(turn_servers: list[TurnServer]) -> TurnServer:
    return turn_servers[0]


@pytest.fixture
async def make_pair() -> AsyncIterator[MakePair]:
    before = asyncio.all_tasks()
    sides: list[Side] = []

    def make(*, for_a: dict[str, Any] | None = None, for_b: dict[str, Any] | None = None, **both: Any) -> Pair:
        ours, theirs = new_credentials()
        a = Side(config_for(ours, **{**both, **(for_a or {})}))
        b = Side(config_for(theirs, **{**both, **(for_b or {}), "role": "controlled"}))
        a.peer, b.peer = b, a
        sides.extend((a, b))
        return a, b

    yield make
    await asyncio.gather(*(side.agent.close(1.0) for side in sides))
    await asyncio.sleep(0)
    assert asyncio.all_tasks() - before - {asyncio.current_task()} == set()
    gc.collect()  # a socket left open would warn here, and warnings are errors
