"""What is said to an actor while its worker hands over: it waits for the successor, or fails by name."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from tests.runtime.troupe import MESSAGES, Number, Say

from exeunt.runtime import Actor, ActorDead, Message, Terminated, receive
from exeunt.runtime.codec import Codec
from exeunt.runtime.envelope import ASK, TELL, Envelope
from exeunt.runtime.flow import WINDOWS
from exeunt.runtime.host import Host
from exeunt.runtime.inheritance import HAND_OVER
from exeunt.runtime.mail import EARLY_BOUND, Mail, unpack
from exeunt.runtime.messages import MESSAGES as RUNTIME_MESSAGES
from exeunt.runtime.messages import Describe, Description
from exeunt.runtime.testing import MemoryNetwork

TO = "test/w2/adder"


class Adder(Actor):
    """Remembers what it has handled, and answers with how much that is."""

    def __init__(self) -> None:
        super().__init__()
        self.handled: list[int] = []

    @receive(Number)
    def on_number(self, message: Number) -> Number:
        self.handled.append(message.n)
        return Number(len(self.handled))


class Watcher(Actor):
    """Watches, and renews the watch of who hands over."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[str] = []

    def on_start(self) -> None:
        self.node.ref(TO).watch()

    @receive(Terminated)
    def on_terminated(self, message: Terminated) -> None:
        self.heard.append(message.reason)
        if message.reason == HAND_OVER:
            self.node.ref(TO).watch()


@pytest.fixture
async def network() -> AsyncIterator[MemoryNetwork]:
    async with MemoryNetwork("w1", "w2", messages=MESSAGES) as network:
        network.nodes["w2"].start(Adder(), "adder")
        yield network


async def hand_over(network: MemoryNetwork) -> bytes:
    """w2 hands over and ends; return its late mail."""
    node = network.nodes["w2"]
    node.mail.begin()
    node.actors["adder"].ref.stop(HAND_OVER)
    await network.until_idle()
    await node.until_settled(0.1)
    await network.until_idle()
    document, left = node.mail.pack(node.codec)
    assert left == []
    network.nodes.pop("w2")
    assert node.transport is not None
    node.transport.close()
    network.nodes["w1"].worker_down("w2", succeeded=True)
    await network.until_idle()
    return document


async def succeed(network: MemoryNetwork, late: bytes = b"") -> Adder:
    """A successor of w2 is there, and after a while its actor."""
    node = network.add("w2")
    node.mail.expect([TO])
    for envelope in unpack(late, node.codec):
        node.deliver(envelope)
    await network.until_idle()
    adder = Adder()
    node.start(adder, "adder")
    await network.until_idle()
    return adder


async def test_tells_wait_for_the_successor_in_their_order(network: MemoryNetwork) -> None:
    w1 = network.nodes["w1"]
    w1.tell(TO, Number(0))
    await network.until_idle()
    w1.worker_changing("w2")
    for n in range(1, 100):
        w1.tell(TO, Number(n))
    late = await hand_over(network)
    for n in range(100, 200):
        w1.tell(TO, Number(n))
    adder = await succeed(network, late)
    w1.tell(TO, Number(200))
    await network.until_idle()
    assert adder.handled == list(range(1, 201))
    await w1.until_settled(1.0)
    assert w1.dead_letters.total == 0
    assert w1.outboxes.unsettled(but="nobody") == []


async def test_more_than_a_window_waits_and_leaves_as_there_is_room(network: MemoryNetwork) -> None:
    w1 = network.nodes["w1"]
    w1.worker_changing("w2")
    count = 2 * WINDOWS[1]
    for n in range(count):
        w1.tell(TO, Number(n))
    adder = await succeed(network, await hand_over(network))
    await network.until_idle()
    assert adder.handled == list(range(count))


async def test_asks_wait_and_are_answered_by_the_successor(network: MemoryNetwork) -> None:
    w1 = network.nodes["w1"]
    w1.worker_changing("w2")
    w1.tell(TO, Number(1))
    first = w1.ask(TO, Number(2))
    late = await hand_over(network)
    second = w1.ask(TO, Number(3))
    adder = await succeed(network, late)
    assert [(await first).n, (await second).n] == [2, 3]
    assert adder.handled == [1, 2, 3]


async def test_an_ask_that_was_given_up_meanwhile_is_not_sent(network: MemoryNetwork) -> None:
    w1 = network.nodes["w1"]
    w1.worker_changing("w2")
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(w1.ask(TO, Number(2)), 0.001)
    adder = await succeed(network, await hand_over(network))
    assert adder.handled == []


async def test_an_ask_that_was_delivered_and_not_answered_fails(network: MemoryNetwork) -> None:
    w1 = network.nodes["w1"]
    network.faults.drop(Number)
    lost = w1.ask(TO, Number(1))
    await hand_over(network)
    with pytest.raises(ActorDead, match="handed over"):
        await lost


async def test_what_the_runtime_has_to_say_does_not_wait(network: MemoryNetwork) -> None:
    network.nodes["w2"].start(Host("test/w1/root", asyncio.Event()), "host")
    w1 = network.nodes["w1"]
    w1.worker_changing("w2")
    described = await w1.ask("test/w2/host", Describe())
    assert isinstance(described, Description)


async def test_a_watch_is_renewed_and_waits_for_the_successor(network: MemoryNetwork) -> None:
    w1, watcher = network.nodes["w1"], Watcher()
    w1.start(watcher, "watcher")
    await network.until_idle()
    w1.worker_changing("w2")
    await hand_over(network)
    assert watcher.heard == [HAND_OVER]
    adder = await succeed(network)
    assert watcher.heard == [HAND_OVER]
    adder.ref.stop("normal")
    await network.until_idle()
    assert watcher.heard == [HAND_OVER, "normal"]


async def test_who_was_not_told_before_hears_of_the_hand_over_with_the_end(network: MemoryNetwork) -> None:
    w1, watcher = network.nodes["w1"], Watcher()
    w1.start(watcher, "watcher")
    await network.until_idle()
    network.faults.drop(Terminated)
    await hand_over(network)  # its last words to the watcher, and the news of it, came to nothing
    assert watcher.heard == [HAND_OVER]
    w1.tell(TO, Number(1))
    assert (await succeed(network)).handled == [1]


async def test_nothing_is_lost_in_silence_when_the_successor_dies(network: MemoryNetwork) -> None:
    w1, watcher = network.nodes["w1"], Watcher()
    w1.start(watcher, "watcher")
    await network.until_idle()
    w1.worker_changing("w2")
    await hand_over(network)
    w1.tell(TO, Number(1))
    asked = w1.ask(TO, Number(2))
    w1.worker_down("w2")
    with pytest.raises(ActorDead, match="died"):
        await asked
    await network.until_idle()
    assert w1.dead_letters.total == 1
    assert watcher.heard == [HAND_OVER, "worker_died"]


async def test_nothing_is_lost_in_silence_when_the_actor_is_not_started_again(network: MemoryNetwork) -> None:
    w1, watcher = network.nodes["w1"], Watcher()
    w1.start(watcher, "watcher")
    await network.until_idle()
    w1.worker_changing("w2")
    await hand_over(network)
    asked = w1.ask(TO, Number(2))
    w1.tell(TO, Number(1))
    node = network.add("w2")
    node.mail.expect([TO])
    await network.until_idle()
    node.expect_nobody()
    with pytest.raises(ActorDead, match="does not live"):
        await asked
    await network.until_idle()
    assert node.dead_letters.total == 1
    assert watcher.heard == [HAND_OVER, "no_such_actor"]
    await w1.until_settled(1.0)
    assert w1.outboxes.unsettled(but="nobody") == []


async def test_what_others_of_the_worker_say_too_late_goes_along(network: MemoryNetwork) -> None:
    node = network.nodes["w2"]
    node.mail.begin()
    node.actors["adder"].ref.stop(HAND_OVER)
    await network.until_idle()
    node.tell(TO, Number(7))
    with pytest.raises(ActorDead):
        await node.ask(TO, Number(8))
    document, left = node.mail.pack(node.codec)
    assert (left, node.dead_letters.total) == ([], 0)
    assert [envelope.body for envelope in unpack(document, node.codec)] == [Number(7)]
    node.tell(TO, Number(9))
    assert node.dead_letters.total == 1, "that was even later"


# --- pure ---


class Unknown(Message, frozen=True):
    """Nobody's."""


def envelope(body: Message, *, kind: int = TELL, to: str = TO) -> Envelope:
    return Envelope(1, 1, 0, "test/w1/a", to, kind, 0, body)


def test_without_a_hand_over_nothing_is_late() -> None:
    assert not Mail().is_late(envelope(Number(1)))


def test_what_cannot_be_written_is_left_and_nonsense_is_nothing() -> None:
    codec = Codec([*RUNTIME_MESSAGES, *MESSAGES])
    mail = Mail()
    mail.begin()
    good, bad = envelope(Say("x")), envelope(Unknown())
    assert mail.is_late(good)
    assert mail.is_late(bad)
    assert not mail.is_late(envelope(Number(1), kind=ASK))
    document, left = mail.pack(codec)
    assert left == [bad]
    assert [one.body for one in unpack(document, codec)] == [Say("x")]
    assert unpack(b"", codec) == unpack(b"\xc1nonsense", codec) == unpack(document[:-1], codec) == []


def test_only_who_is_expected_has_early_mail_and_it_is_bounded() -> None:
    mail = Mail()
    mail.expect([TO])
    assert not mail.is_early(envelope(Number(1), to="test/w2/other"))
    for _ in range(EARLY_BOUND):
        assert mail.is_early(envelope(Number(1)))
    assert not mail.is_early(envelope(Number(1)))
    assert len(mail.started(TO)) == EARLY_BOUND
    assert not mail.is_early(envelope(Number(1)))
    assert mail.give_up() == []
