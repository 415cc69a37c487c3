"""What a connection that has ended holds is given back at once, by counting references: nothing of it is a cycle.

A gateway's connections come and go. What knows itself in a circle stays until the collector looks at everything, which
it does the more rarely the larger the process is: hundreds of ended connections would wait.
"""

# pyright: reportPrivateUsage=false

import asyncio
import dataclasses
import gc
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.actors.peer.test_actor import KEYS, Side, settle

from exeunt.actors.endings import Cause
from exeunt.actors.ice import IceConfig
from exeunt.actors.peer import paths
from exeunt.actors.peer.actor import PeerConnection
from exeunt.actors.peer.messages import AddCandidates, Close, PeerConfig, PeerConnected, PeerEnded
from exeunt.actors.portal.actor_messages import PortalSay
from exeunt.runtime import Actor
from exeunt.runtime.host import stop_all


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def on_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    configure = paths.ice_config

    def here(config: PeerConfig) -> IceConfig:
        return dataclasses.replace(configure(config), host_filter="127.0.0.1".__eq__)

    monkeypatch.setattr(paths, "ice_config", here)


async def told(side: Side, kind: Any) -> None:
    async with asyncio.timeout(5):
        while not side.owner.of(kind):  # noqa: ASYNC110 - real sockets, and no event of the owner's
            await asyncio.sleep(0.005)


async def connected(directory: Path) -> tuple[Side, Side]:
    """Two ends with real agents, whose candidates the test carries over."""
    client, gateway = (Side(name, directory) for name in KEYS)
    swapped = {"local_username": "efgh", "local_password": "q" * 22, "remote_username": "abcd"}
    gateway.peer = PeerConnection(**gateway.config(**swapped, remote_password="p" * 22))
    for side in (client, gateway):
        side.begin()
    for side, other in ((client, gateway), (gateway, client)):
        await told(side, PortalSay)
        for say in side.owner.of(PortalSay):
            other.ref.tell(AddCandidates(say.message.candidates, end=say.message.end))
    for side in (client, gateway):
        await told(side, PeerConnected)
    return client, gateway


async def test_an_ended_connection_is_freed_without_the_collector(
    tmp_path: Path, on_loopback: None, no_collector: None
) -> None:
    sides = client, gateway = await connected(tmp_path)
    parts = [(side.peer, side.peer._machine, side.peer._machine.tunnel, side.peer.paths) for side in sides]
    left = [weakref.ref(part) for of_side in parts for part in (*of_side, of_side[-1].agent)]
    del parts
    answer: PeerEnded = await client.ref.ask(Close(Cause.SIGNED_OUT))
    assert answer.ending.acknowledged
    await client.over()
    await told(gateway, PeerEnded)
    gateway.peer._machine.handle_timeout(gateway.peer._now() + 10)  # it has lingered
    gateway.peer._drain()
    await gateway.over()
    for side in sides:
        del side.peer
    await settle()
    assert [part() for part in left if part() is not None] == []
    for side in sides:
        await stop_all(side.node, "shutdown", each_s=2)


async def test_an_actor_that_has_ended_is_freed_without_the_collector(tmp_path: Path, no_collector: None) -> None:
    node = Side("client", tmp_path).node
    actor = Actor()
    node.start(actor, "short-lived").stop()
    await actor.until_ended()
    left = weakref.ref(actor)
    del actor
    await settle()
    assert left() is None
    await stop_all(node, "shutdown", each_s=2)
