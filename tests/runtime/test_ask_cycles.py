"""An ask that would wait for itself fails at once, with the cycle spelled out; nothing else does."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.runtime.conftest import until
from tests.runtime.troupe import Number, Say

from exeunt.runtime import Actor, AskTimeout, BlockingActor, ExeuntError, Later, Message, RemoteFailure, receive
from exeunt.runtime.errors import AskCycle, Unencodable
from exeunt.runtime.node import Node
from exeunt.runtime.testing import MemoryNetwork


class Along(Message, frozen=True):
    """Ask the first with the rest of the way; at its end, answer."""

    way: tuple[str, ...]


class Hop(Actor):
    """Asks on. Its class says how."""

    @receive(Along)
    async def along(self, message: Along) -> Any:
        return await self.on(message)

    async def on(self, message: Along) -> Any:
        if not message.way:
            return Say("arrived")
        return await self.node.ref(message.way[0]).ask(Along(message.way[1:]))


class LaterHop(Hop):
    @receive(Along)
    def along(self, message: Along) -> Later:  # type: ignore[override]
        return Later(self.on(message))


class Careless(Hop):
    """Asks, and does not wait for the answer."""

    def __init__(self) -> None:
        super().__init__()
        self.replies: list[Any] = []

    @receive(Along)
    def along(self, message: Along) -> Message:  # type: ignore[override]
        if not message.way:
            return Say("arrived")
        self.replies.append(self.node.ref(message.way[0]).ask(Along(message.way[1:])))
        return Say("careless")


class BlockingHop(BlockingActor):
    @receive(Along)
    def along(self, message: Along) -> Any:
        if not message.way:
            return Say("arrived")
        return self.node.ref(message.way[0]).ask(Along(message.way[1:])).get()


@pytest.fixture
async def network() -> AsyncIterator[MemoryNetwork]:
    async with MemoryNetwork("a", "b", "c", messages=[Along, Number, Say]) as network:
        for worker in ("a", "b", "c"):
            for name, kind in (("h", Hop), ("g", Hop), ("l", LaterHop), ("x", Careless), ("t", BlockingHop)):
                network.nodes[worker].start(kind(), name)
        yield network


async def walk(network: MemoryNetwork, *way: str) -> Message:
    addresses = tuple(f"test/{one}" for one in way)
    found: Message = await network.ref(way[0]).ask(Along(addresses[1:]), timeout_s=2)
    return found


@pytest.mark.parametrize(
    ("way", "cycle"),
    [
        (("a/h", "a/h"), "test/a/h → test/a/h"),
        (("a/t", "a/t"), "test/a/t → test/a/t"),
        (("a/h", "a/g", "a/h"), "test/a/h → test/a/g → test/a/h"),
        (("a/h", "b/h", "a/h"), "test/a/h → test/b/h → test/a/h"),
        (("a/h", "b/h", "c/h", "a/h"), "test/a/h → test/b/h → test/c/h → test/a/h"),
        (("c/h", "a/h", "b/t", "a/h"), "test/a/h → test/b/t → test/a/h"),
        (("b/h", "a/l", "b/h"), "test/b/h → test/b/h"),
    ],
)
async def test_a_cycle_is_spelled_out(network: MemoryNetwork, way: tuple[str, ...], cycle: str) -> None:
    with pytest.raises((AskCycle, RemoteFailure)) as caught:
        await walk(network, *way)
    error: ExeuntError = caught.value
    while isinstance(error, RemoteFailure) and error.failure.type == "RemoteFailure":
        error = RemoteFailure(error.failure)
    assert str(error).endswith(f"this ask would wait for itself: {cycle}")


@pytest.mark.parametrize(
    "way",
    [
        ("a/h", "b/h", "c/h", "a/g"),  # no cycle
        ("a/l", "a/l"),  # who answers later goes on meanwhile
        ("a/l", "b/h", "a/l", "c/h"),
        ("a/l", "b/l", "c/l", "a/l", "b/l"),
    ],
)
async def test_what_only_looks_like_one_is_none(network: MemoryNetwork, way: tuple[str, ...]) -> None:
    assert await walk(network, *way) == Say("arrived")


async def test_who_does_not_wait_may_be_asked(network: MemoryNetwork) -> None:
    assert await walk(network, "a/x", "b/h", "a/x") == Say("careless")
    careless = network.nodes["a"].actors["x"]
    assert isinstance(careless, Careless)
    assert await careless.replies[0] == Say("arrived")


async def test_two_that_ask_each_other_for_different_causes_are_no_cycle(network: MemoryNetwork) -> None:
    """It is a deadlock, but of two asks, neither of which waits for itself: the deadline ends it."""

    class Both(Hop):
        @receive(Say)
        async def say(self, message: Say) -> Any:
            return await self.node.ref(message.text).ask(Number(1), timeout_s=0.05)

        @receive(Number)
        def number(self, message: Number) -> Number:
            return message

    for worker in ("a", "b"):
        network.nodes[worker].start(Both(), "both")
    asks = [
        network.ref("a/both").ask(Say("test/b/both")),
        network.ref("b/both").ask(Say("test/a/both")),
    ]
    ends = await asyncio.gather(*asks, return_exceptions=True)
    assert all(isinstance(end, (Number, AskTimeout, RemoteFailure)) for end in ends)
    assert "would wait" not in str(ends)


async def test_a_cycle_does_not_end_the_one_that_it_comes_back_to(node: Node) -> None:
    """The ask fails; whoever made it may bear that."""

    class Cautious(Actor):
        @receive(Say)
        async def say(self, _message: Say) -> Say:
            try:
                await self.ref.ask(Number(1))
            except AskCycle as error:
                return Say(str(error))
            return Say("?")

    actor = Cautious()
    answer = await node.start(actor, "c").ask(Say(""))
    assert answer == Say("this ask would wait for itself: n/w/c → n/w/c")
    assert actor.state == "running"


async def test_asks_within_more_asks_than_may_cross_harm_nobody_else(network: MemoryNetwork) -> None:
    """Such a frame would be refused as a whole at the other end; so it is refused at this one."""
    way = [f"{'ab'[n % 2]}/d{n}" for n in range(260)]
    for one in way:
        worker, name = one.split("/")
        network.nodes[worker].start(Hop(), name)
    with pytest.raises((Unencodable, RemoteFailure), match="asks wait for one another; 256 may"):
        await walk(network, *way)
    await until(lambda: True)
    assert all(node.malformed_total == 0 for node in network.nodes.values())
