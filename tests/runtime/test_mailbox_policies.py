"""What a full mailbox does: reject, drop the oldest, or slow who sends."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.runtime.conftest import until
from tests.runtime.troupe import Number, Open, Say

from exeunt.runtime import Actor, ActorDead, Message, Terminated, receive
from exeunt.runtime.envelope import LIFE_SHIFT, Envelope, Kind
from exeunt.runtime.errors import MailboxFull
from exeunt.runtime.events import MailboxFull as MailboxWasFull
from exeunt.runtime.host import stop_all
from exeunt.runtime.mailbox import Mailbox, Policy
from exeunt.runtime.node import Node
from exeunt.runtime.testing import FakeClock, MemoryNetwork


class Slow(Actor):
    """Handles a number each time that it is let. `Open` waits for the gate."""

    mailbox_bound = 4

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.entered = asyncio.Event()
        self.permits = asyncio.Semaphore(0)
        self.handled: list[int] = []
        self.ended: list[str] = []

    @receive(Open)
    async def open(self, _message: Open) -> None:
        self.entered.set()
        await self.gate.wait()

    @receive(Number)
    def number(self, message: Number) -> Number:
        self.handled.append(message.n)
        return message

    @receive(Say)
    async def one(self, message: Say) -> None:
        await self.permits.acquire()
        self.handled.append(int(message.text))

    @receive(Terminated)
    def terminated(self, message: Terminated) -> None:
        self.ended.append(message.address)


class Dropping(Slow):
    mailbox_policy = "drop_oldest"


class Blocking(Slow):
    mailbox_policy = "block"


class Sender(Actor):
    """Sends a number on for each that it gets."""

    def __init__(self, to: str) -> None:
        super().__init__()
        self.to = to
        self.sent: list[int] = []

    @receive(Number)
    def number(self, message: Number) -> None:
        self.sent.append(message.n)
        self.node.ref(self.to).tell(message)


def full_events(node: Node) -> list[MailboxWasFull]:
    return [event for event in node.events.recent if isinstance(event, MailboxWasFull)]


async def busy(node: Node, actor: Slow, name: str = "slow") -> Slow:
    """Start it, and have it wait at its gate."""
    node.start(actor, name).tell(Open())
    await actor.entered.wait()
    return actor


async def test_reject_takes_no_more_than_its_bound(node: Node) -> None:
    slow = await busy(node, Slow())
    for n in range(6):
        slow.ref.tell(Number(n))
    with pytest.raises(MailboxFull, match="4 messages waiting"):
        await slow.ref.ask(Number(6))
    assert node.dead_letters.total == 2
    slow.gate.set()
    await until(lambda: slow.lifecycle.is_idle)
    assert slow.handled == [0, 1, 2, 3]
    assert slow.mailbox.rejected_total == 3


async def test_drop_oldest_keeps_the_last(node: Node) -> None:
    slow = await busy(node, Dropping())
    first = slow.ref.ask(Number(-1))
    for n in range(6):
        slow.ref.tell(Number(n))
    with pytest.raises(MailboxFull):
        await first
    slow.gate.set()
    await until(lambda: slow.lifecycle.is_idle)
    assert slow.handled == [2, 3, 4, 5]
    assert (slow.mailbox.dropped_total, node.dead_letters.total) == (3, 2)


async def test_a_terminated_does_not_give_way(node: Node) -> None:
    slow = await busy(node, Dropping())
    other = node.start(Slow(), "other")
    node.watches.add(str(slow.ref), str(other), 1)
    node.watches.add_remote(str(slow.ref), str(other), 1)
    other.stop()
    await until(lambda: len(slow.mailbox) == 1)
    for n in range(10):
        slow.ref.tell(Number(n))
    slow.gate.set()
    await until(lambda: slow.lifecycle.is_idle)
    assert slow.ended == ["n/w/other"]
    assert slow.handled == [7, 8, 9]


@pytest.mark.parametrize("policy", [Slow, Dropping, Blocking])
async def test_being_full_is_said_once_until_half_of_it_is_empty(node: Node, policy: type[Slow]) -> None:
    slow = await busy(node, policy())
    for n in range(20):
        slow.ref.tell(Number(n))
    assert [(event.of, event.bound, event.policy) for event in full_events(node)] == [
        ("n/w/slow", 4, slow.mailbox_policy)
    ]
    slow.gate.set()
    await until(lambda: slow.lifecycle.is_idle)
    slow.entered.clear()
    slow.gate.clear()
    slow.ref.tell(Open())
    await slow.entered.wait()
    for n in range(20):
        slow.ref.tell(Number(n))
    assert len(full_events(node)) == 2
    slow.gate.set()


async def test_block_slows_an_actor_and_loses_nothing(node: Node) -> None:
    slow = await busy(node, Blocking())
    sender = Sender("n/w/slow")
    ref = node.start(sender, "sender")
    for n in range(100):
        ref.tell(Number(n))
    await until(lambda: sender.lifecycle.held)
    assert sender.sent == [0, 1, 2, 3]
    assert len(slow.mailbox) == 4
    ref.stop()  # a stop reaches one that is held
    await sender.until_ended()
    assert node.dead_letters.total == 96
    slow.gate.set()
    await until(lambda: slow.lifecycle.is_idle)
    assert slow.handled == [0, 1, 2, 3]


async def test_block_lets_go_when_half_is_empty(node: Node) -> None:
    """Also where the handler is async, and the mailbox never gets empty."""
    slow = Blocking()
    node.start(slow, "slow")

    class Relay(Sender):
        @receive(Number)
        def number(self, message: Number) -> None:
            self.sent.append(message.n)
            self.node.ref(self.to).tell(Say(str(message.n)))

    sender = Relay("n/w/slow")
    ref = node.start(sender, "sender")
    for n in range(20):
        ref.tell(Number(n))
    await until(lambda: sender.lifecycle.held)
    assert len(slow.mailbox) <= 4
    sent = len(sender.sent)
    for done in range(1, 4):
        slow.permits.release()
        await until(lambda: len(slow.handled) >= done)  # noqa: B023 - awaited here
    await until(lambda: len(sender.sent) > sent)
    assert not slow.mailbox.empty()
    for _ in range(20):
        slow.permits.release()
    await until(lambda: len(slow.handled) == 20)
    assert slow.handled == list(range(20))
    assert node.dead_letters.total == 0


def test_two_that_hold_each_other_up_go_on() -> None:
    class Echo(Actor):
        mailbox_bound = 2
        mailbox_policy: Policy = "block"  # type: ignore[misc] # pyright: ignore[reportIncompatibleVariableOverride]
        left = 50

        @receive(Number)
        def number(self, message: Number) -> None:
            if self.left:
                self.left -= 1
                assert self.sender is not None
                for _ in range(2):
                    self.sender.tell(message)

    async def scene() -> None:
        async with MemoryNetwork("w", messages=[Number]) as network:
            node = network.nodes["w"]
            echoes = {name: Echo() for name in ("a", "b")}
            for name, echo in echoes.items():
                node.start(echo, name)
            for name, other in (("a", "b"), ("b", "a")):
                body = Number(0)
                node.put(echoes[name], Envelope(1, 1, 0, f"test/w/{other}", f"test/w/{name}", Kind.TELL, 0, body))
            both_held = 0
            while not all(echo.lifecycle.is_idle for echo in echoes.values()):
                both_held += all(echo.lifecycle.held for echo in echoes.values())
                await asyncio.sleep(0.1 if both_held else 0)
            assert both_held
            assert [echo.left for echo in echoes.values()] == [0, 0]
            assert [echo.handled_total for echo in echoes.values()] == [101, 101]

    FakeClock().run(scene())


async def test_block_bounds_what_nobody_can_be_slowed_for(node: Node) -> None:
    """Who is no actor, and the actor itself."""
    slow = await busy(node, Blocking())
    for n in range(10):
        slow.ref.tell(Number(n))
    assert len(slow.mailbox) == 4
    assert node.dead_letters.total == 6

    class Greedy(Actor):
        mailbox_bound = 4
        mailbox_policy: Policy = "block"  # type: ignore[misc] # pyright: ignore[reportIncompatibleVariableOverride]
        handled = 0

        @receive(Number)
        def number(self, message: Number) -> None:
            self.handled += 1
            if message.n:
                for _ in range(10):
                    self.ref.tell(Number(0))

    greedy = Greedy()
    node.start(greedy, "greedy").tell(Number(1))
    await until(lambda: greedy.handled and greedy.lifecycle.is_idle)
    assert greedy.handled == 5
    slow.gate.set()


async def test_a_dead_one_holds_nobody(node: Node) -> None:
    slow = await busy(node, Blocking())
    sender = Sender("n/w/slow")
    ref = node.start(sender, "sender")
    for n in range(10):
        ref.tell(Number(n))
    await until(lambda: sender.lifecycle.held)
    slow.kill()
    await until(lambda: len(sender.sent) == 10)
    assert node.dead_letters.total == 10


# --- offering ---


async def test_offer_waits_for_room(node: Node) -> None:
    slow = await busy(node, Slow())
    offers = [asyncio.ensure_future(slow.ref.offer(Number(n))) for n in range(10)]
    await until(lambda: len(slow.mailbox) == 4)
    assert [offer.done() for offer in offers] == [True] * 4 + [False] * 6
    slow.gate.set()
    await asyncio.gather(*offers)
    await until(lambda: slow.lifecycle.is_idle)
    assert slow.handled == list(range(10))
    assert node.dead_letters.total == 0


async def test_offer_gives_up(node: Node) -> None:
    slow = await busy(node, Slow())
    for n in range(4):
        slow.ref.tell(Number(n))
    for _ in range(20):
        with pytest.raises(MailboxFull, match=r"no room within 0\.001 s"):
            await slow.ref.offer(Number(4), timeout_s=0.001)
    assert len(slow.mailbox.waiters or ()) <= 1  # those who gave up are not kept
    slow.gate.set()
    await slow.ref.offer(Number(5))
    await until(lambda: slow.lifecycle.is_idle)
    assert slow.handled == [0, 1, 2, 3, 5]


async def test_offer_to_one_that_ends_is_a_dead_letter(node: Node) -> None:
    slow = await busy(node, Slow())
    for n in range(4):
        slow.ref.tell(Number(n))
    offer = asyncio.ensure_future(slow.ref.offer(Number(4)))
    await until(lambda: slow.mailbox.waiters)
    slow.kill()
    await offer
    assert node.dead_letters.total == 5


async def test_offer_goes_on_while_a_mailbox_never_gets_empty(node: Node) -> None:
    slow = Slow()
    node.start(slow, "slow")
    for n in range(4):
        slow.ref.tell(Say(str(n)))
    offer = asyncio.ensure_future(slow.ref.offer(Say("4")))
    await until(lambda: slow.lifecycle.busy)
    for _ in range(2):
        slow.permits.release()
    await asyncio.wait_for(offer, 2)
    for _ in range(3):
        slow.permits.release()
    await until(lambda: len(slow.handled) == 5)


# --- what stands for the rejected ---


def envelope(id_: int, origin: str, body: Message | None = None) -> Envelope:
    return Envelope(id_, id_, 0, f"n/{origin or 'w'}/s", "n/w/r", Kind.TELL, 0, body or Number(id_), origin=origin)


def test_a_stand_in_keeps_the_place_of_the_rejected() -> None:
    mailbox = Mailbox(1)
    taken, lost, more, other = envelope(1, "a"), envelope(2, "a"), envelope(3, "a"), envelope(4, "b")
    assert mailbox.put(taken) is None
    assert [mailbox.put(one) for one in (lost, more, other)] == [lost, more, other]
    assert len(mailbox) == 1
    assert mailbox.get() is taken
    assert len(mailbox) == 0
    assert not mailbox.empty()
    stand_in = mailbox.get()
    assert (stand_in.origin, mailbox.passed(stand_in)) == ("a", 2)
    assert mailbox.put(envelope(5, "a")) is None  # a stand-in takes up no room
    stand_in = mailbox.get()
    assert (stand_in.origin, mailbox.passed(stand_in)) == ("b", 1)
    assert type(mailbox.get().body) is Number


@pytest.fixture
async def network() -> AsyncIterator[MemoryNetwork]:
    async with MemoryNetwork("a", "b", messages=[Number, Open, Say]) as network:
        yield network


async def test_what_was_sent_first_is_settled_first(network: MemoryNetwork) -> None:
    """A rejected message counts only when all before it do: else the wrong ones would be in doubt."""
    a, b = network.nodes.values()
    slow = Slow()
    b.start(slow, "r")
    reports: list[Any] = []

    def note(origin: str, address: str, count: int, last: int) -> None:
        assert (origin, address) == (f"a/{a.life}", "test/b/r")
        assert last >> LIFE_SHIFT == a.life
        reports.append(count)

    b.settled = note  # type: ignore[method-assign]
    ref = network.ref("b/r", seen_from="a")
    ref.tell(Open())
    await slow.entered.wait()
    for n in range(10):
        ref.tell(Number(n))
    await until(lambda: b.dead_letters.total == 6)
    assert reports == []
    slow.gate.set()
    await network.until_idle()
    assert sum(reports) == 11
    assert reports[-1] == 6
    assert slow.handled == [0, 1, 2, 3]
    assert a.dead_letters.total == 0


async def test_the_rejected_of_a_draining_one_are_settled_at_its_end(network: MemoryNetwork) -> None:
    _, b = network.nodes.values()
    slow = Slow()
    b.start(slow, "r").tell(Open())
    await slow.entered.wait()
    slow.ref.drain()
    ref = network.ref("b/r", seen_from="a")
    for n in range(3):
        ref.tell(Number(n))
    with pytest.raises(ActorDead, match="is stopping"):
        await ref.ask(Number(3))
    box = network.nodes["a"].outboxes.of("test/b/r")
    assert box.outstanding == 3
    slow.gate.set()
    await slow.until_ended()
    await until(lambda: not box.outstanding)
    assert b.dead_letters.total == 3


async def test_the_end_of_a_worker_waits_for_nobody_who_is_held(node: Node) -> None:
    slow = await busy(node, Blocking())
    sender = Sender("n/w/slow")
    ref = node.start(sender, "sender")
    for n in range(10):
        ref.tell(Number(n))
    await until(lambda: sender.lifecycle.held)
    slow.gate.set()
    await stop_all(node, "shutdown", each_s=1)
    assert node.dead_letters.total + len(slow.handled) == 10
