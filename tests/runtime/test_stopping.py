"""Three strengths: drain finishes the mailbox, stop the current message, kill nothing. Whom it is for, it ends."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.runtime.conftest import until
from tests.runtime.troupe import Number, Open, Player, Said, Say

from exeunt.runtime import Actor, ActorDead, receive
from exeunt.runtime.node import Node
from exeunt.runtime.testing import MemoryNetwork


class Counting(Actor):
    """Notes numbers, and how it ended. `Open` waits for the gate."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.entered = asyncio.Event()
        self.cancelled = False
        self.log: list[str] = []
        self.numbers: list[int] = []

    def on_stop(self) -> None:
        self.log.append(self.exit_reason)

    @receive(Open)
    async def open(self, _message: Open) -> None:
        self.entered.set()
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise

    @receive(Number)
    def number(self, message: Number) -> Any:
        self.numbers.append(message.n)


@pytest.fixture
async def network() -> AsyncIterator[MemoryNetwork]:
    async with MemoryNetwork("a", "b", messages=[Open, Number, Said, Say]) as network:
        yield network


async def waiting(node: Node, count: int = 3) -> Counting:
    """Return one that handles `Open`, with as many numbers behind it."""
    actor = Counting()
    ref = node.start(actor, "x")
    ref.tell(Open())
    await actor.entered.wait()
    for n in range(count):
        ref.tell(Number(n))
    return actor


@pytest.mark.parametrize("seen_from", ["a", "b"])
@pytest.mark.parametrize(
    ("how", "handled", "log"),
    [("drain", [0, 1, 2], ["shutdown"]), ("stop", [], ["shutdown"]), ("kill", [], [])],
)
async def test_each_strength(
    network: MemoryNetwork, how: str, handled: list[int], log: list[str], seen_from: str
) -> None:
    node = network.nodes["a"]
    actor = await waiting(node)
    getattr(network.ref("a/x", seen_from=seen_from), how)()
    if how != "kill":
        await until(lambda: actor.mailbox.draining or actor.mailbox.system)
        assert actor.state == "running"
        actor.gate.set()
    await actor.until_ended()
    assert actor.numbers == handled
    assert actor.log == log
    assert actor.cancelled == (how == "kill")
    assert node.dead_letters.total == 3 - len(handled)
    assert actor.exit_reason == ("killed" if how == "kill" else "shutdown")


async def test_while_it_drains_it_takes_nothing_more(network: MemoryNetwork) -> None:
    node = network.nodes["a"]
    actor = await waiting(node)
    actor.ref.drain("done")
    actor.ref.tell(Number(9))
    with pytest.raises(ActorDead, match="is stopping"):
        await actor.ref.ask(Number(9))
    with pytest.raises(ActorDead, match="is stopping"):
        await network.ref("a/x", seen_from="b").ask(Number(9))
    actor.gate.set()
    await actor.until_ended()
    assert actor.numbers == [0, 1, 2]
    assert actor.log == ["done"]
    assert node.dead_letters.total == 1


@pytest.mark.parametrize("second", ["stop", "kill"])
async def test_a_stronger_one_does_not_wait_for_a_drain(network: MemoryNetwork, second: str) -> None:
    actor = await waiting(network.nodes["a"])
    actor.ref.drain()
    getattr(actor.ref, second)()
    actor.gate.set()
    await actor.until_ended()
    assert actor.numbers == []
    assert network.nodes["a"].dead_letters.total == 3


async def test_an_idle_one_drains_at_once(network: MemoryNetwork) -> None:
    actor = Counting()
    network.nodes["a"].start(actor, "x").drain()
    await actor.until_ended()
    assert actor.log == ["shutdown"]


async def test_who_waits_for_room_is_not_drained_for_ever(network: MemoryNetwork) -> None:
    actor = await waiting(network.nodes["a"], 0)
    actor.mailbox.bound = 1
    actor.ref.tell(Number(0))
    offer = asyncio.ensure_future(actor.ref.offer(Number(1)))
    await until(lambda: actor.mailbox.waiters)
    actor.ref.drain()
    actor.gate.set()
    await actor.until_ended()
    await offer
    assert network.nodes["a"].dead_letters.total == 1


@pytest.mark.parametrize("how", ["stop", "drain", "kill"])
@pytest.mark.parametrize("far", [False, True])
async def test_what_was_meant_for_one_does_not_end_its_successor(network: MemoryNetwork, how: str, far: bool) -> None:
    node = network.nodes["a"]
    first, second = Player(), Player()
    old = node.start(first, "p", incarnation=1)
    old.stop()
    await first.until_ended()
    new = node.start(second, "p", incarnation=2)
    if far:
        network.nodes["b"].stop_actor("test/a/p", "late", how=how, incarnation=1)  # type: ignore[arg-type]
    else:
        getattr(old, how)()
    await network.until_idle()
    assert isinstance(await new.ask(Say("there?")), Said)
    assert old == new
    # A ref that was made for nobody in particular ends whoever lives there.
    getattr(network.ref("a/p", seen_from="b"), how)()
    await second.until_ended()


async def test_a_stop_for_nobody_is_dropped(network: MemoryNetwork) -> None:
    for how in ("stop", "drain", "kill"):
        network.nodes["b"].stop_actor("test/a/nobody", "x", how=how)
    await network.until_idle()
    assert all(node.dead_letters.total == 0 for node in network.nodes.values())


async def test_a_kill_reaches_one_that_has_not_started(network: MemoryNetwork) -> None:
    class Hangs(Player):
        async def on_start(self) -> None:
            await asyncio.Event().wait()

    hangs = Hangs()
    ref = network.nodes["a"].start(hangs, "h")
    ask = ref.ask(Say("?"))
    await until(lambda: hangs.lifecycle.busy)
    ref.kill()
    await asyncio.wait_for(hangs.until_ended(), 1)
    with pytest.raises(ActorDead):
        await ask
    with pytest.raises(ActorDead, match="did not start"):
        await hangs.started


async def test_a_kill_within_a_handler_ends_it_where_it_next_waits(network: MemoryNetwork) -> None:
    class Suicidal(Counting):
        @receive(Number)
        async def number(self, message: Number) -> None:
            self.ref.kill()
            self.log.append(f"still here at {message.n}")
            await asyncio.Event().wait()

    for warm in (False, True):
        actor = Suicidal()
        ref = network.nodes["a"].start(actor, "s")
        if warm:  # there is a task, in whose name the first step is taken
            actor.gate.set()
            await ref.ask(Open())
        ask = ref.ask(Number(1))
        await asyncio.wait_for(actor.until_ended(), 2)
        assert actor.log == ["still here at 1"]
        with pytest.raises(ActorDead):
            await ask
