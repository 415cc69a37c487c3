"""Flow control between workers: a slow actor slows its senders; nothing is lost; the dead are counted exactly."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.runtime.conftest import until
from tests.runtime.test_transport import (
    pair,  # noqa: F401  # pyright: ignore[reportUnusedImport]
)
from tests.runtime.troupe import Number, Open, Say

from exeunt.runtime import Actor, ActorDead, Message, receive
from exeunt.runtime import messages as runtime_messages
from exeunt.runtime.codec import Codec
from exeunt.runtime.errors import MailboxFull
from exeunt.runtime.flow import FIRST_WINDOW, Outbox
from exeunt.runtime.host import stop_all
from exeunt.runtime.memory import perish
from exeunt.runtime.node import Node
from exeunt.runtime.recorder import Recorder
from exeunt.runtime.testing import FakeClock, MemoryNetwork


class Sink(Actor):
    """Handles numbers while its gate is open."""

    mailbox_bound = 40  # so its window is 20

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.handled: list[int] = []
        self.most = 0

    @receive(Number)
    async def number(self, message: Number) -> Number:
        self.most = max(self.most, len(self.mailbox))
        await self.gate.wait()
        self.handled.append(message.n)
        return message


class Source(Actor):
    """Sends on what it gets."""

    def __init__(self, to: str) -> None:
        super().__init__()
        self.to = to
        self.count = 0

    @receive(Number)
    def number(self, message: Number) -> None:
        self.count += 1
        self.node.ref(self.to).tell(message)


MESSAGES: list[type[Message]] = [Number, Open, Say]


@pytest.fixture
async def network() -> AsyncIterator[MemoryNetwork]:
    async with MemoryNetwork("a", "b", messages=MESSAGES) as network:
        yield network


async def acquainted(a: Node, sink: Sink) -> Outbox:
    """Have the sink's worker name the window; return the outbox towards it."""
    sink.gate.set()
    box = a.outboxes.of(str(sink.ref))
    for _ in range(FIRST_WINDOW // 2 // 20):
        for _ in range(20):
            a.ref(str(sink.ref)).tell(Number(-1))
        await until(lambda: not box.outstanding)
    assert box.window == 20
    sink.gate.clear()
    sink.handled.clear()
    return box


async def test_a_slow_actor_bounds_what_is_under_way_and_holds_who_sends(network: MemoryNetwork) -> None:
    a, b = network.nodes.values()
    sink, source = Sink(), Source("test/b/sink")
    b.start(sink, "sink")
    box = await acquainted(a, sink)
    ref = a.start(source, "source")
    for n in range(1_000):
        ref.tell(Number(n))
    await until(lambda: source.lifecycle.held)
    await until(lambda: len(sink.mailbox) == 19)
    assert (source.count, box.outstanding, len(box.waiting)) == (21, 20, 1)
    assert len(source.mailbox) == 979
    sink.gate.set()
    await until(lambda: len(sink.handled) == 1_000)
    assert sink.handled == list(range(1_000))
    assert sink.most < 40
    assert (a.dead_letters.total, b.dead_letters.total, sink.mailbox.rejected_total) == (0, 0, 0)
    await until(lambda: not box.outstanding)
    assert (list(box.unsettled), list(box.waiting), box.held) == ([], [], [])
    assert a.outboxes.of("test/b/sink").window == 20  # it is remembered: the next burst is no larger


def test_one_that_is_never_ready_slows_and_does_not_stop() -> None:
    """One message a second, however long it goes on: what waits does not fill memory."""

    async def scene() -> None:
        async with MemoryNetwork("a", "b", messages=MESSAGES) as network:
            a, b = network.nodes.values()
            sink, source = Sink(), Source("test/b/sink")
            b.start(sink, "sink")
            box = a.outboxes.of("test/b/sink")
            box.window = 20
            ref = a.start(source, "source")
            for n in range(1_000):
                ref.tell(Number(n))
            await asyncio.sleep(0.5)
            counts: list[int] = []
            for _ in range(50):
                await asyncio.sleep(1)
                counts.append(source.count)
            assert [after - before for before, after in itertools.pairwise(counts)] == [1] * 49
            assert len(box.held) <= 1
            sink.gate.set()
            await until(lambda: len(sink.handled) == 1_000)
            assert sink.handled == list(range(1_000))

    FakeClock().run(scene())


def test_a_hold_is_not_ended_by_an_earlier_ones_time() -> None:
    """Held and let go a thousand times in a second, a sender is not let go a thousand times in the next."""

    async def scene() -> None:
        async with MemoryNetwork("a", "b", messages=MESSAGES) as network:
            a, b = network.nodes.values()
            sink, source = Sink(), Source("test/b/sink")
            b.start(sink, "sink")
            sink.gate.set()
            box = a.outboxes.of("test/b/sink")
            box.window = 1
            ref = a.start(source, "source")
            for n in range(2_000):
                ref.tell(Number(n))
                if n % 20 == 0:
                    await asyncio.sleep(0.01)  # a second's worth of being held and let go
            sink.gate.clear()
            for n in range(2_000):
                ref.tell(Number(n))
            await asyncio.sleep(0.1)
            before = source.count
            await asyncio.sleep(2)
            assert source.count - before <= 3
            sink.gate.set()

    FakeClock().run(scene())


async def test_offer_waits_for_room_and_gives_up(network: MemoryNetwork) -> None:
    a, b = network.nodes.values()
    sink = Sink()
    b.start(sink, "sink")
    box = await acquainted(a, sink)
    ref = a.ref("test/b/sink")
    for n in range(20):
        await ref.offer(Number(n))
    for _ in range(3):
        with pytest.raises(MailboxFull, match="no room"):
            await ref.offer(Number(-1), timeout_s=0.001)
    assert len(box.waiters) <= 1
    offers = [asyncio.ensure_future(ref.offer(Number(n))) for n in range(20, 60)]
    await asyncio.sleep(0)
    assert not any(offer.done() for offer in offers)
    sink.gate.set()
    await asyncio.gather(*offers)
    await until(lambda: len(sink.handled) == 60)
    assert sink.handled == list(range(60))
    assert not box.waiting
    assert sink.mailbox.rejected_total == 0


async def test_order_is_kept_with_asks_behind_tells_that_wait(network: MemoryNetwork) -> None:
    a, b = network.nodes.values()
    sink = Sink()
    b.start(sink, "sink")
    box = await acquainted(a, sink)
    ref = a.ref("test/b/sink")
    asks: list[Any] = []
    for n in range(100):
        asks.append(ref.ask(Number(n))) if n % 7 == 6 else ref.tell(Number(n))
    assert box.waiting
    sink.gate.set()
    await asyncio.gather(*asks)
    await until(lambda: len(sink.handled) == 100)
    assert sink.handled == list(range(100))


async def test_an_ask_that_waits_and_is_given_up_never_leaves(network: MemoryNetwork) -> None:
    a, b = network.nodes.values()
    sink = Sink()
    b.start(sink, "sink")
    box = await acquainted(a, sink)
    ref = a.ref("test/b/sink")
    for n in range(21):
        ref.tell(Number(n))
    ask = ref.ask(Number(-5))
    assert len(box.waiting) == 2
    ask.cancel()
    assert len(box.waiting) == 1
    sink.gate.set()
    await until(lambda: len(sink.handled) == 21)
    assert await ref.ask(Number(21)) == Number(21)
    assert -5 not in sink.handled


async def test_what_cannot_be_encoded_takes_up_no_window(network: MemoryNetwork) -> None:
    a, b = network.nodes.values()
    sink = Sink()
    b.start(sink, "sink")
    box = await acquainted(a, sink)
    ref = a.ref("test/b/sink")
    for _ in range(100):
        ref.tell(Number(1 << 80))
    assert (box.outstanding, len(box.waiting)) == (0, 0)
    assert a.dead_letters.total == 100
    for n in range(30):
        ref.tell(Number(n))
    assert len(box.waiting) == 10
    sink.gate.set()
    await until(lambda: len(sink.handled) == 30)
    await until(lambda: not box.outstanding)


async def test_a_tell_to_nobodys_worker_leaves_nothing_behind(network: MemoryNetwork) -> None:
    a = network.nodes["a"]
    for n in range(50):
        a.ref(f"test/nowhere/x{n}").tell(Number(n))
    assert a.dead_letters.total == 50
    assert not any(a.outboxes.known(f"test/nowhere/x{n}") for n in range(50))


@pytest.mark.parametrize("first", [True, False])
async def test_what_cannot_be_read_is_settled_in_its_turn(network: MemoryNetwork, first: bool) -> None:
    """The sender knows a message that the recipient's worker does not: there it is a dead letter."""

    class Unknown(Message, frozen=True):
        pass

    a, b = network.nodes.values()
    sink = Sink()
    b.start(sink, "sink")
    a.codec = Codec([*MESSAGES, *runtime_messages.MESSAGES, Unknown])
    vars(a.transport)["_codec"] = a.codec
    ref = a.ref("test/b/sink")
    if not first:
        ref.tell(Number(1))
    ref.tell(Unknown())
    box = a.outboxes.of("test/b/sink")
    await until(lambda: b.malformed_total == 1)
    if not first:
        await until(lambda: sink.lifecycle.busy)
        b._accounts.flush()  # pyright: ignore[reportPrivateUsage]
        await network.nodes["a"].loop.run_in_executor(None, lambda: None)
        assert box.outstanding == 2  # neither counts before the first is done
        sink.gate.set()
    await until(lambda: not box.outstanding)
    assert b.dead_letters.total == 1


async def test_dead_letters_at_the_other_end_are_settled_too(network: MemoryNetwork) -> None:
    a, b = network.nodes.values()
    for n in range(100):
        a.ref("test/b/nobody").tell(Number(n))
    box = a.outboxes.of("test/b/nobody")
    await until(lambda: not box.outstanding)
    assert b.dead_letters.total == 100
    assert a.outboxes.known("test/b/nobody") is None


# --- a worker dies ---


@pytest.mark.parametrize("kept", [True, False], ids=["with its ring", "without"])
async def test_what_a_dead_worker_had_not_begun_is_dead_letters(tmp_path: Path, kept: bool) -> None:
    path = tmp_path / "test.b.1.ring"
    async with MemoryNetwork("a", messages=MESSAGES) as network:
        a = network.nodes["a"]
        b = network.add("b", recorder=Recorder(path, worker="b", epoch=1, capacity=1024))
        sink = Sink()
        b.start(sink, "sink")
        box = await acquainted(a, sink)
        source = Source("test/b/sink")
        a.start(source, "source")
        for n in range(30):
            source.ref.tell(Number(n))
            a.ref("test/b/sink").tell(Number(100 + n))
        asks = [a.ref("test/b/sink").ask(Number(200 + n)) for n in range(3)]
        await until(lambda: len(sink.mailbox) == 19)
        assert (box.outstanding, bool(box.waiting)) == (20, True)
        tells = box.outstanding + len(box.waiting) - len(asks)
        node = network.nodes.pop("b")
        perish(node)
        a.worker_down("b", str(path) if kept else "")
        for ask in asks:
            with pytest.raises(ActorDead):
                await ask
        begun = 1 if kept else 0  # the one that it was handling: whether it did, nobody knows
        assert a.dead_letters.total == tells - begun
        reasons = {letter.reason for letter in a.dead_letters.recent}
        assert reasons == {"ActorDead: test/b/sink: its worker died"}
        senders = {letter.sender for letter in a.dead_letters.recent}
        assert senders == {"test/a/source", "test/a/$outside"}
        await until(lambda: source.count == 30)  # nobody is held by the dead
        assert a.outboxes.known("test/b/sink") is None


async def test_offers_do_not_wait_for_the_dead(network: MemoryNetwork) -> None:
    a, b = network.nodes.values()
    sink = Sink()
    b.start(sink, "sink")
    await acquainted(a, sink)
    ref = a.ref("test/b/sink")
    for n in range(20):
        ref.tell(Number(n))
    offer = asyncio.ensure_future(ref.offer(Number(20)))
    await asyncio.sleep(0)
    await network.kill("b")
    await asyncio.wait_for(offer, 1)
    assert a.dead_letters.total == 21


# --- over ZeroMQ ---


async def test_over_zeromq_nothing_is_lost_and_order_is_kept(pair: tuple[Node, Node]) -> None:  # noqa: F811
    a, b = pair
    sink, source = Sink(), Source("n/b/sink")
    b.start(sink, "sink")
    box = await acquainted(a, sink)
    ref = a.start(source, "source")
    for n in range(2_000):
        ref.tell(Number(n))
    await until(lambda: source.lifecycle.held and len(sink.mailbox) == 19)
    assert (box.outstanding, len(box.waiting)) == (20, 1)
    sink.gate.set()
    ask = source.ref.ask(Number(2_000))
    await until(lambda: len(sink.handled) == 2_001)
    await ask
    assert sink.handled == list(range(2_001))
    assert sink.mailbox.rejected_total == 0
    await until(lambda: not box.outstanding)


async def test_over_zeromq_what_cannot_be_encoded_takes_up_no_window(pair: tuple[Node, Node]) -> None:  # noqa: F811
    """Neither the first of a turn, which leaves at once, nor the rest, which leaves with it at its end."""
    a, b = pair
    sink = Sink()
    b.start(sink, "sink")
    box = await acquainted(a, sink)
    ref = a.ref("n/b/sink")
    for round_ in range(5):
        for _ in range(20):
            ref.tell(Number(1 << 80))
        ref.tell(Number(round_))  # waits, where the window is full of what will not leave
        await until(lambda: a.dead_letters.total >= 20 * (round_ + 1))  # noqa: B023 - awaited here
    sink.gate.set()
    await until(lambda: len(sink.handled) == 5)
    assert sink.handled == [0, 1, 2, 3, 4]
    await until(lambda: not box.outstanding)
    assert not box.waiting
    await stop_all(b, "shutdown", each_s=0.1)
