"""The laboratory's relays are reached over every transport and family, and give addresses that others reach."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from exeunt.clients.lab import NatKind
from exeunt.clients.lab.internet import RELAY_ADDRESSES, RELAY_ADDRESSES6

from .agents import CONNECT_S, AgentProcess, Connect
from .meeting_place import MeetingPlace, meeting_place
from .relays import Transport, server

pytestmark = pytest.mark.slow

PAIR = (NatKind.DUAL_STACK, NatKind.NONE)
TRANSPORTS: list[tuple[str, str, Transport]] = [
    ("exeunt", RELAY_ADDRESSES[0], "udp"),
    ("exeunt", RELAY_ADDRESSES6[0], "udp"),
    ("coturn", RELAY_ADDRESSES[1], "udp"),
    ("coturn", RELAY_ADDRESSES[1], "tcp"),
    ("coturn", RELAY_ADDRESSES[1], "tls"),
    ("coturn", RELAY_ADDRESSES6[1], "udp"),
    ("coturn", RELAY_ADDRESSES6[1], "tcp"),
    ("coturn", RELAY_ADDRESSES6[1], "tls"),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MeetingPlace]:
    """A client with both families, a gateway with IPv4 only, and both relays."""
    with meeting_place([PAIR], tmp_path_factory.mktemp("relays")) as built:
        yield built


@pytest.mark.parametrize(("relay", "address", "transport"), TRANSPORTS)
def test_a_relay_carries_data(place: MeetingPlace, relay: str, address: str, transport: Transport) -> None:
    async def work() -> Connect:
        async with place.agents() as agents, agents.between(PAIR) as connect:
            assert await connect.start(((server(address, transport),), ()), relay_only=True)
            connect.talk(0.05)
            assert await connect.wait(5, lambda: connect.client.echoes > 3)
        return connect

    connect = asyncio.run(work())
    path = connect.client.path
    assert path is not None
    assert (path.local_type, path.remote_type) == ("relay", "host")
    # Over IPv6, too, it lends an IPv4 address where nothing else is asked for (RFC 8656 section 7.2).
    assert path.local[0] == RELAY_ADDRESSES[0 if relay == "exeunt" else 1]
    assert connect.is_same_pair
    for side in connect.sides:
        assert side.counters is not None
        assert "relay_not_released" not in side.counters


def test_a_relay_whose_certificate_is_not_trusted_is_not_used(place: MeetingPlace, tmp_path: Path) -> None:
    (tmp_path / "nobody.pem").write_text("")
    distrusting = {"SSL_CERT_FILE": str(tmp_path / "nobody.pem")}

    async def work() -> Connect:
        async with (
            AgentProcess(place.clients[PAIR[0]].host, distrusting) as client,
            AgentProcess(place.gateways[PAIR[1]].host, {}) as gateway,
            Connect(client, gateway) as connect,
        ):
            assert not await connect.start(((server(RELAY_ADDRESSES[1], "tls"),), ()), relay_only=True)
            await connect.wait(CONNECT_S, lambda: bool(connect.client.failure))  # the gateway may have given up first
        return connect

    connect = asyncio.run(work())
    assert connect.client.failure == "no_local_candidates"
    assert connect.client.candidates == [""]
