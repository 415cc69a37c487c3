"""What is put aside is handled later, in order, and never lost."""

from typing import Any

import pytest
from tests.runtime.conftest import until
from tests.runtime.troupe import Finish, Number, Open, Say

from exeunt.runtime import Actor, ActorDead, Message, RemoteFailure, receive
from exeunt.runtime.errors import LocalError, Refused
from exeunt.runtime.node import Node
from exeunt.runtime.testing import MemoryNetwork

MESSAGES: list[type[Message]] = [Finish, Number, Open, Say]


class Door(Actor):
    """Puts numbers aside until it is open. `Say("twice")` and such say what to do beside."""

    def __init__(self) -> None:
        super().__init__()
        self.is_open = False
        self.then = ""
        self.handled: list[int] = []

    @receive(Number)
    def number(self, message: Number) -> Number | None:
        if not self.is_open:
            self.stash()
            if self.then == "stash":
                self.stash()
            if self.then == "raise":
                raise ValueError("put aside, and failed")
            if self.then == "refuse":
                raise Refused("no", "not today")
            return Number(-1)  # is not the answer: that comes later
        self.handled.append(message.n)
        return message

    @receive(Open)
    def open(self, _message: Open) -> None:
        self.is_open = True
        self.unstash_all()

    @receive(Say)
    def say(self, message: Say) -> None:
        self.then = message.text

    @receive(Finish)
    def finish(self, _message: Finish) -> None:
        self.stop()


@pytest.fixture
def door(node: Node) -> Door:
    door = Door()
    node.start(door, "d")
    return door


async def test_what_was_put_aside_comes_first_and_in_order(door: Door) -> None:
    for n in (1, 2, 3):
        door.ref.tell(Number(n))
    await until(lambda: len(door.lifecycle.stashed or ()) == 3)
    door.ref.tell(Open())
    door.ref.tell(Number(4))
    await until(lambda: len(door.handled) == 4)
    assert door.handled == [1, 2, 3, 4]


async def test_an_ask_is_answered_when_it_is_handled(door: Door) -> None:
    reply = door.ref.ask(Number(5))
    await until(lambda: door.lifecycle.stashed)
    assert not reply.done()
    door.ref.tell(Open())
    assert await reply == Number(5)


async def test_the_stash_of_an_ended_actor_is_dead(node: Node, door: Door) -> None:
    reply = door.ref.ask(Number(1))
    door.ref.tell(Number(2))
    door.ref.tell(Finish())
    with pytest.raises(ActorDead):
        await reply
    assert [letter.message for letter in node.dead_letters.recent] == ["Number"]


async def test_putting_aside_twice_is_once(door: Door) -> None:
    door.ref.tell(Say("stash"))
    door.ref.tell(Number(1))
    door.ref.tell(Open())
    door.ref.tell(Number(2))
    await until(lambda: door.handled[-1:] == [2])
    assert door.handled == [1, 2]


async def test_what_is_refused_is_not_put_aside(door: Door) -> None:
    door.ref.tell(Say("refuse"))
    with pytest.raises(Refused):
        await door.ref.ask(Number(1))
    assert not door.lifecycle.stashed


async def test_what_failed_is_no_dead_letter(node: Node, door: Door) -> None:
    door.ref.tell(Say("raise"))
    door.ref.tell(Number(1))
    await door.until_ended()
    assert node.dead_letters.total == 0


async def test_whoever_gives_up_is_forgotten(door: Door) -> None:
    reply = door.ref.ask(Number(1))
    await until(lambda: door.lifecycle.stashed)
    reply.cancel()
    door.ref.tell(Open())
    assert await door.ref.ask(Number(2)) == Number(2)
    assert door.handled == [2]


async def test_there_is_nothing_to_put_aside_between_messages(door: Door) -> None:
    await door.started
    with pytest.raises(LocalError, match="being handled"):
        door.stash()


async def test_a_stash_has_a_bound(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exeunt.runtime.actor._STASH_BOUND", 2)
    door = Door()
    ref = node.start(door, "small")
    ref.tell(Number(1))
    ref.tell(Number(2))
    with pytest.raises(RemoteFailure, match="2 messages are stashed already"):
        await ref.ask(Number(3))
    await door.until_ended()
    assert node.dead_letters.total == 2


def settled_by(node: Node) -> list[int]:
    """Have a node list how many messages of others it says that it has dealt with."""
    counts: list[int] = []
    accounts: Any = vars(node)["_accounts"]
    settle = accounts.settle

    def count_and_settle(worker: str, address: str, count: int, last: int) -> None:
        counts.append(count)
        settle(worker, address, count, last)

    accounts.settle = count_and_settle
    return counts


@pytest.mark.parametrize(("after", "sent"), [("unstash", 7), ("end", 4), ("raise", 4)])
async def test_flow_control_counts_each_once(after: str, sent: int) -> None:
    async with MemoryNetwork("a", "b", messages=MESSAGES) as network:
        network.nodes["b"].start(Door(), "d")
        counts = settled_by(network.nodes["b"])
        ref = network.ref("b/d", seen_from="a")
        if after == "raise":
            ref.tell(Say("raise"))
        for n in range(3):
            ref.tell(Number(n))
        if after == "unstash":
            ref.tell(Open())
            for n in range(3, 6):
                ref.tell(Number(n))
        elif after == "end":
            ref.tell(Finish())
        await network.until_idle()
        assert sum(counts) == sent


async def test_one_that_was_put_aside_shares_no_record_with_the_one_behind_it() -> None:
    """For only one of them is still to be settled."""
    async with MemoryNetwork("a", "b", messages=MESSAGES) as network:
        door = Door()
        network.nodes["b"].start(door, "d")
        counts = settled_by(network.nodes["b"])
        ref = network.ref("b/d", seen_from="a")
        ref.tell(Number(1))
        await until(lambda: door.lifecycle.stashed)
        door.lifecycle.hold(10)
        ref.tell(Number(2))  # its id follows that of the first
        await until(lambda: len(door.mailbox) == 1)
        door.is_open = True
        assert door.lifecycle.stashed is not None
        assert door.mailbox.ordinary is not None
        door.mailbox.ordinary[0].sender = door.lifecycle.stashed[0].sender  # the same object, as within one run
        door.unstash_all()
        door.lifecycle.release()
        await network.until_idle()
        assert door.handled == [1, 2]
        assert sum(counts) == 2
