"""Whoever asked gives up: what waits on its behalf is let go, and nothing else is."""

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from tests.runtime.conftest import until
from tests.runtime.troupe import Gate, Number, Open, Player, Relay, Say

from exeunt.runtime import Actor, ActorDead, AskTimeout, BlockingActor, Later, receive
from exeunt.runtime.node import Node
from exeunt.runtime.recorder import Event, Recorder, read_ring
from exeunt.runtime.testing import MemoryNetwork


class Patient(Actor):
    """Its handler waits for `gate`, and may be cancelled there."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.entered = asyncio.Event()
        self.cancelled = 0
        self.deaf = False
        self.numbers: list[int] = []
        self.meet: Callable[[], Awaitable[Any]] | None = None

    @receive(Open, cancellable=True)
    async def open(self, _message: Open) -> None:
        self.entered.set()
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            if not self.deaf:
                raise

    @receive(Number)
    def number(self, message: Number) -> Number:
        self.numbers.append(message.n)
        return message

    @receive(Say)
    async def say(self, _message: Say) -> None:
        assert self.meet is not None
        await self.meet()


def events(node: Node) -> list[int]:
    assert isinstance(node.recorder, Recorder)
    return [record.event for record in read_ring(node.recorder.path).records]


@pytest.fixture
async def patient(node: Node) -> AsyncIterator[Patient]:
    actor = Patient()
    node.start(actor, "p")
    yield actor
    actor.gate.set()


async def test_a_cancellable_handler_is_cancelled_and_its_actor_lives_on(node: Node, patient: Patient) -> None:
    reply = patient.ref.ask(Open())
    await patient.entered.wait()
    assert reply.cancel()
    assert await patient.ref.ask(Number(1)) == Number(1)
    assert (patient.cancelled, patient.state) == (1, "running")
    assert Event.CANCELLED in events(node)


async def test_cancelling_the_task_that_awaits_withdraws_the_ask(patient: Patient) -> None:
    async def ask() -> None:
        await patient.ref.ask(Open())

    task = asyncio.create_task(ask())
    await patient.entered.wait()
    task.cancel()
    assert await patient.ref.ask(Number(1)) == Number(1)
    assert patient.cancelled == 1


async def test_a_timeout_withdraws_the_ask(patient: Patient) -> None:
    with pytest.raises(AskTimeout):
        await patient.ref.ask(Open(), timeout_s=0.01)
    assert await patient.ref.ask(Number(1)) == Number(1)
    assert patient.cancelled == 1


async def test_a_handler_that_takes_no_notice_is_finished_and_the_next_failure_is_one(patient: Patient) -> None:
    patient.deaf = True
    reply = patient.ref.ask(Open())
    await patient.entered.wait()
    reply.cancel()
    assert await patient.ref.ask(Number(1)) == Number(1)

    async def meet() -> None:
        raise asyncio.CancelledError

    patient.meet = meet
    with pytest.raises(Exception, match="CancelledError"):
        await patient.ref.ask(Say(""))
    await patient.until_ended()
    assert patient.exit_reason == "crashed"


async def test_the_withdrawal_of_a_handler_that_has_not_begun_cancels_it_alone(node: Node) -> None:
    """The task that is to run it has been made, or woken, but has not had its turn."""
    for turn in range(2):
        patient = Patient()
        ref = node.start(patient, f"p{turn}")
        await patient.started
        if turn:
            assert await ref.ask(Number(0))
            first = ref.ask(Open())  # so that there is a task already, which waits
            await patient.entered.wait()
            patient.gate.set()
            await first
            patient.gate.clear()
            await until(lambda: patient.lifecycle.is_idle)  # noqa: B023 - awaited here
        reply = ref.ask(Open())
        asyncio.get_running_loop().call_soon(reply.cancel)  # between the actor's turn and its task's
        assert await ref.ask(Number(1), timeout_s=1) == Number(1)
        assert patient.state == "running"


@pytest.mark.parametrize("has_task", [False, True])
async def test_a_kill_before_the_handlers_turn_is_a_kill(node: Node, has_task: bool) -> None:
    patient = Patient()
    ref = node.start(patient, "k")
    await patient.started
    if has_task:
        patient.gate.set()
        await ref.ask(Open())
        patient.gate.clear()
        await until(lambda: patient.lifecycle.is_idle)
    reply = ref.ask(Open())
    asyncio.get_running_loop().call_soon(patient.kill)  # between the actor's turn and its task's
    await asyncio.wait_for(patient.until_ended(), 1)
    with pytest.raises(ActorDead):
        await reply
    gc.collect()  # a coroutine that nobody awaited would be a warning, and those are errors here


async def test_what_waits_is_taken_out_of_the_mailbox(node: Node, patient: Patient) -> None:
    running = patient.ref.ask(Open())
    await patient.entered.wait()
    asks = [patient.ref.ask(Number(n)) for n in range(10)]
    for ask in asks[::2]:
        ask.cancel()
    assert len(patient.mailbox) == 5
    patient.gate.set()
    await asyncio.gather(running, *asks[1::2])
    assert patient.numbers == [1, 3, 5, 7, 9]
    assert events(node).count(Event.CANCELLED) == 5


async def test_the_asks_of_those_who_gave_up_take_up_no_room(node: Node) -> None:
    class Small(Gate):
        mailbox_bound = 3

    gate = Small()
    ref = node.start(gate, "g")
    running = ref.ask(Open())
    await gate.entered.wait()
    for _ in range(10):
        with pytest.raises(AskTimeout):
            await ref.ask(Number(1), timeout_s=0.001)
    gate.gate.set()
    await running
    assert gate.mailbox.rejected_total == 0


async def test_a_handler_that_is_not_cancellable_is_finished(node: Node) -> None:
    gate = Gate()
    ref = node.start(gate, "g")
    reply = ref.ask(Open())
    await gate.entered.wait()
    reply.cancel()
    gate.gate.set()
    assert await ref.ask(Number(1)) == Number(1)
    assert not gate.cancelled


async def test_an_answer_that_comes_later_is_cancelled_and_nobody_is_answered(node: Node) -> None:
    ended: list[str] = []

    class Slow(Actor):
        @receive(Open)
        def open(self, _message: Open) -> Later:
            return Later(self._wait())

        async def _wait(self) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ended.append("cancelled")

    actor = Slow()
    reply = node.start(actor, "s").ask(Open())
    await until(lambda: actor.lifecycle.unanswered)
    await asyncio.sleep(0)
    reply.cancel()
    await until(lambda: ended)
    await asyncio.sleep(0)
    assert not actor.lifecycle.unanswered
    assert actor.state == "running"
    assert Event.DROPPED not in events(node)


async def test_a_thread_gives_up(node: Node, patient: Patient) -> None:
    async with asyncio.timeout(5):
        reply = await asyncio.to_thread(lambda: patient.ref.ask(Open()))
        await patient.entered.wait()
        assert await asyncio.to_thread(reply.cancel)
        assert not reply.cancel()
        await until(lambda: patient.cancelled)
        with pytest.raises(ActorDead, match="abandoned"):
            await asyncio.to_thread(reply.get)


async def test_the_task_of_another_loop_gives_up(patient: Patient) -> None:
    entered = threading.Event()

    async def elsewhere() -> None:
        async def ask() -> None:
            await patient.ref.ask(Open())

        task = asyncio.create_task(ask())
        await asyncio.to_thread(entered.wait)
        task.cancel()
        await asyncio.wait([task])

    thread = asyncio.create_task(asyncio.to_thread(asyncio.run, elsewhere()))
    await patient.entered.wait()
    entered.set()
    await thread
    await until(lambda: patient.cancelled, within_s=2)  # before the ask's own 5 s are over


async def test_a_call_on_a_thread_is_not_cancelled_and_the_next_waits_for_it(node: Node) -> None:
    inside, go = threading.Event(), threading.Event()
    handled: list[str] = []

    class Blocking(BlockingActor):
        @receive(Open, cancellable=True)
        def open(self, _message: Open) -> None:
            inside.set()
            go.wait(5)
            assert self.lifecycle.envelope is not None
            handled.append(type(self.lifecycle.envelope.body).__name__)

        @receive(Number)
        def number(self, message: Number) -> Number:
            return message

    ref = node.start(Blocking(), "b")
    reply = ref.ask(Open())
    await asyncio.to_thread(inside.wait)
    reply.cancel()
    following = ref.ask(Number(1))
    await asyncio.sleep(0)
    go.set()
    assert await following == Number(1)
    assert handled == ["Open"]


async def test_giving_up_reaches_another_worker() -> None:
    async with MemoryNetwork("a", "b", messages=[Open, Number, Say, Relay]) as network:
        patient = Patient()
        network.nodes["b"].start(patient, "p")
        reply = network.ref("b/p", seen_from="a").ask(Open())
        await patient.entered.wait()
        reply.cancel()
        await until(lambda: patient.cancelled)
        assert await network.ref("b/p", seen_from="a").ask(Number(2)) == Number(2)


async def test_who_asks_on_behalf_of_another_gives_up_with_it() -> None:
    """The relay's own ask is cancelled with its handler, and withdrawn in its turn."""

    class CancellableRelay(Player):
        @receive(Relay, cancellable=True)
        async def relay(self, message: Relay) -> Any:
            return await self.node.ref(message.to).ask(Open())

    async with MemoryNetwork("a", "b", messages=[Open, Number, Say, Relay]) as network:
        patient = Patient()
        network.nodes["b"].start(patient, "p")
        network.nodes["a"].start(CancellableRelay(), "r")
        reply = network.ref("a/r").ask(Relay("test/b/p", ""))
        await patient.entered.wait()
        reply.cancel()
        await until(lambda: patient.cancelled)
