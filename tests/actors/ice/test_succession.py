"""Others who use a path: a supervisor that sends on it, and a successor process that goes on with it."""

import asyncio
import os
import socket
from dataclasses import replace
from typing import Any

import pytest
from msgspec.structs import replace as replaced
from tests.actors.ice.sides import (
    MakePair,
    Side,
    assert_carries,
    config_for,
    connect,
    new_credentials,
    turn,
)

from exeunt.actors.ice import IceAgent, IceConfig
from exeunt.actors.ice.ancillary import sent_from
from exeunt.actors.ice.sockets import Sockets


async def test_somebody_with_a_duplicate_of_the_socket_sends_on_the_direct_path(make_pair: MakePair) -> None:
    a, b = make_pair()
    assert a.agent.route() is None
    path, _ = await connect(a, b)
    route = a.agent.route()
    assert route is not None
    assert (route.channel, route.kind, route.destination) == ("udp4", "direct", path.remote)
    descriptor = a.agent.channel_descriptor(route.channel)
    assert descriptor is not None
    with socket.socket(fileno=os.dup(descriptor)) as duplicate:
        assert route.source is not None
        duplicate.sendmsg([route.frame(b"a last word")], sent_from(route.source), 0, path.remote)
    assert await asyncio.wait_for(b.datagrams.get(), 2.0) == b"a last word"
    assert a.agent.channel_descriptor("relay-0.7") is None
    await a.agent.close(1.0)
    assert a.agent.route() is None
    assert a.agent.channel_descriptor(route.channel) is None


async def test_and_through_a_relay(turn_server: Any, make_pair: MakePair) -> None:
    a, b = make_pair(for_a={"relay_only": True, "servers": (turn(turn_server.address),)})
    await connect(a, b)
    route = a.agent.route()
    assert route is not None
    assert (route.kind, route.destination, route.source, len(route.prefix)) == ("relay", None, None, 2)
    descriptor = a.agent.channel_descriptor(route.channel)
    assert descriptor is not None
    os.write(descriptor, route.frame(b"a last word"))
    assert await asyncio.wait_for(b.datagrams.get(), 2.0) == b"a last word"
    assert a.agent.snapshot() is None
    assert b.agent.snapshot() is not None  # of its one leg, b sees nothing: to b it is an address like others


def test_a_frame_over_tcp_is_padded() -> None:
    from exeunt.actors.ice import Route

    route = Route("relay-0.1", None, None, b"\x40\x01", "relay", padded=True)
    assert route.frame(b"12345") == b"\x40\x01\x00\x0512345\x00\x00\x00"


@pytest.mark.parametrize("who", ["client", "gateway"])
async def test_a_successor_goes_on_where_its_predecessor_was(who: str) -> None:
    ours, theirs = new_credentials()
    first = Sockets()
    a = Side(config_for(ours, role="controlling" if who == "client" else "controlled"), sockets=first)
    b = Side(config_for(theirs, role="controlled" if who == "client" else "controlling"))
    a.peer, b.peer = b, a
    path, _ = await connect(a, b)
    snapshot, duplicates = a.agent.snapshot(), {name: sock.dup() for name, sock in first.descriptors().items()}
    assert snapshot is not None
    first.pause()
    await a.agent.close(1.0)

    c = Side(replace(config_for(ours), resume=snapshot), sockets=Sockets.adopt(duplicates))
    b.peer, c.peer = c, b
    resumed = c.agent.path
    assert resumed is not None
    assert replaced(resumed, rtt_ms=path.rtt_ms) == path
    assert await c.agent.connect(1.0) == resumed
    await assert_carries(c, b)
    await asyncio.sleep(0)
    assert c.paths == [resumed]
    seen = c.agent.last_alive
    c.agent.hint(urgent=True)
    for _ in range(200):
        await asyncio.sleep(0.005)
        if c.agent.last_alive != seen:
            break
    assert c.agent.last_alive != seen
    assert b.losses.empty()
    assert c.losses.empty()
    assert len(b.paths) == 1

    ours, theirs = new_credentials()
    after, _ = await asyncio.gather(c.agent.restart(ours, 5.0, 1), b.agent.restart(theirs, 5.0, 1))
    assert after.local == path.local
    await assert_carries(c, b)
    await asyncio.gather(c.agent.close(1.0), b.agent.close(1.0))


@pytest.mark.parametrize("resume", [b"", b"nonsense", b"\x80"])
async def test_what_is_not_a_snapshot_is_refused(resume: bytes) -> None:
    ours, _ = new_credentials()
    sockets = Sockets()
    with pytest.raises(ValueError, match="snapshot"):
        IceAgent(replace(config_for(ours), resume=resume), Side.silent(), sockets=sockets)
    assert sockets.descriptors() == {}


async def test_secrets_are_not_shown(make_pair: MakePair) -> None:
    a, b = make_pair()
    await connect(a, b)
    snapshot = a.agent.snapshot()
    assert snapshot is not None
    config: IceConfig = replace(a.config, resume=snapshot)
    assert a.config.local_password.encode() in snapshot
    assert a.config.local_password not in repr(config)
