"""The watcher on the real kernel: a host that gets another address, in a network namespace of its own."""

import asyncio
import os
import socket
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
from tests.actors.notes import Notes

from exeunt.actors.messages import MESSAGES, IgnoreAddresses, NetworkChanged
from exeunt.actors.network import watch_actor
from exeunt.actors.network.links import STATIC_PROTOCOL, Links
from exeunt.actors.network.watch_actor import NetworkWatcher, picture
from exeunt.clients.lab import Namespace, connect
from exeunt.runtime import Actor, receive
from exeunt.runtime.codec import Codec
from exeunt.runtime.host import stop_all
from exeunt.runtime.messages import MESSAGES as RUNTIME_MESSAGES
from exeunt.runtime.node import Node


class Owner(Actor):
    def __init__(self) -> None:
        super().__init__()
        self.told: asyncio.Queue[str] = asyncio.Queue()

    @receive(NetworkChanged)
    def on_changed(self, message: NetworkChanged) -> None:
        self.told.put_nowait(message.reason)

    async def next(self) -> str:
        return await asyncio.wait_for(self.told.get(), 5)


class Story:
    """A node with a watcher and its owner."""

    def __init__(self, *ignored: str) -> None:
        self.node = Node("demo", "control", codec=Codec([*RUNTIME_MESSAGES, *MESSAGES]))
        self.owner, self.watcher = Owner(), NetworkWatcher("demo/control/owner", ignored)
        self.node.start(self.owner, "owner")
        self.node.start(self.watcher, "watcher")

    async def change(self, act: Callable[[Links], object]) -> None:
        """Change the host's network; pyroute2 wants a thread without a loop."""

        def change() -> None:
            with Links(route_protocol=STATIC_PROTOCOL) as links:
                act(links)

        await asyncio.to_thread(change)


@pytest.fixture
def host() -> Iterator[Namespace]:
    """A host with a cable to another one."""
    with Namespace("host") as host, Namespace("world") as world:
        connect(host, "eth0", world, "eth0")
        world.configure(addresses={"eth0": []})
        host.configure(addresses={"eth0": ["192.0.2.7/24"]})
        yield host


def tell(host: Namespace, tale: Callable[[], Coroutine[Any, Any, None]]) -> None:
    host.run(lambda: asyncio.run(tale()))


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="a network namespace needs root")
def test_another_address_is_told_and_only_that(host: Namespace) -> None:
    async def tale() -> None:
        story = Story("tun9")
        await story.watcher.started
        assert story.watcher.picture == {"192.0.2.7"}
        await story.change(lambda links: links.add_address("eth0", "198.51.100.9/24"))
        assert await story.owner.next() == "addresses changed: 1 came, 0 went"
        await story.change(lambda links: links.add_route("0.0.0.0/0", "eth0", via="192.0.2.1"))
        assert await story.owner.next() == "addresses changed: 1 came, 0 went"
        assert "out 192.0.2.7" in story.watcher.picture
        await story.change(lambda links: links.add_route("203.0.113.0/24", "eth0", via="192.0.2.1"))
        await story.change(lambda links: links.remove_address("eth0", "198.51.100.9/24"))
        assert await story.owner.next() == "addresses changed: 0 came, 1 went"
        assert story.owner.told.empty(), "a route to one network is not a way out"
        await stop_all(story.node, "shutdown", each_s=1)

    tell(host, tale)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="a network namespace needs root")
def test_the_tunnels_own_device_and_addresses_are_not_the_network(host: Namespace) -> None:
    async def tale() -> None:
        story = Story("tun9")
        await story.watcher.started
        story.node.local("watcher").tell(IgnoreAddresses(("100.64.0.1",)))

        def open_devices(links: Links) -> None:
            links.add_bridge("tun9")
            links.set_up("tun9")
            links.add_address("tun9", "100.64.0.7/32")
            links.add_address("eth0", "100.64.0.1/32")

        await story.change(open_devices)
        await story.change(lambda links: links.add_address("eth0", "198.51.100.9/24"))
        assert await story.owner.next() == "addresses changed: 1 came, 0 went"
        assert story.watcher.picture == {"192.0.2.7", "198.51.100.9"}
        await stop_all(story.node, "shutdown", each_s=1)

    tell(host, tale)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="a network namespace needs root")
def test_what_changed_while_nobody_watched_is_told_by_the_successor(host: Namespace) -> None:
    async def tale() -> None:
        story = Story("tun9")
        notes = story.node.deposits = Notes()
        story.node.local("watcher").tell(IgnoreAddresses(("100.64.0.1",)))
        await story.watcher.started
        story.watcher.ref.stop("hand_over")
        await story.watcher.until_ended()
        await story.change(lambda links: links.add_address("eth0", "198.51.100.9/24"))
        await story.change(lambda links: links.add_address("eth0", "100.64.0.1/32"))
        notes.succeeds = True
        story.node.start(NetworkWatcher("demo/control/owner", ("tun9",)), "watcher")
        assert await story.owner.next() == "addresses changed: 1 came, 0 went"
        await stop_all(story.node, "shutdown", each_s=1)

    tell(host, tale)


async def test_without_netlink_the_clocks_are_still_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_arguments: object) -> None:
        raise PermissionError("not here")

    monkeypatch.setattr(socket, "socket", refused)
    story = Story()
    await story.watcher.started
    assert story.watcher.state == "running"
    now = 10.0**9
    monkeypatch.setattr(watch_actor, "clocks", lambda: (now, now))
    story.watcher.look()
    assert "stopped for" in await story.owner.next()
    await stop_all(story.node, "shutdown", each_s=1)


def test_a_picture_has_no_loopback_and_nothing_of_the_link() -> None:
    assert not [one for one in picture(frozenset()) if one.startswith(("127.", "::1", "fe80:"))]
