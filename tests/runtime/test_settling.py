"""What flow control knows of tells to other workers: enough to lose none of them in silence when a worker dies."""

import asyncio
from pathlib import Path
from typing import ClassVar

import pytest
from tests.runtime.troupe import MESSAGES, Number, Open, Player

from exeunt.runtime import Actor, ActorDead, receive
from exeunt.runtime.mailbox import Policy
from exeunt.runtime.node import Node
from exeunt.runtime.recorder import Recorder
from exeunt.runtime.testing import FakeClock, MemoryNetwork, Probe


class Stepper(Actor):
    """Handles one message for each token."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = asyncio.Semaphore(0)

    @receive(Number)
    async def on_number(self, _message: Number) -> None:
        await self.tokens.acquire()


class Forgetful(Stepper):
    """Has room for two."""

    mailbox_bound: ClassVar[int] = 2
    mailbox_policy: ClassVar[Policy] = "drop_oldest"


class Idler(Player):
    """Waits for ever in its only async handler."""

    @receive(Open)
    async def on_open(self, _message: Open) -> None:
        await asyncio.Event().wait()


def tell(node: Node, count: int) -> None:
    """Have a probe tell the stepper in w2."""
    probe = Probe.on(node, f"probe{len(node.actors)}")
    for n in range(count):
        probe.tell("test/w2/stepper", Number(n))


def test_a_successor_is_not_told_what_became_of_its_predecessors_mail() -> None:
    async def scene() -> None:
        async with MemoryNetwork("w1", "w2", messages=MESSAGES) as network:
            stepper = Stepper()
            network.nodes["w2"].start(stepper, "stepper")
            tell(network.nodes["w1"], 2)
            await asyncio.sleep(0.01)
            await network.kill("w1")
            successor = network.add("w1")
            tell(successor, 3)
            await asyncio.sleep(0.01)
            stepper.tokens.release()
            stepper.tokens.release()
            await asyncio.sleep(1)  # the predecessor's have been handled, and reported
            assert stepper.handled_total == 2
            await network.kill("w2")
            assert successor.dead_letters.total == 3  # w2 had no flight recorder: nobody knows of any of them

    FakeClock().run(scene())


def test_a_flight_recorder_tells_what_had_begun(tmp_path: Path) -> None:
    async def scene() -> None:
        async with MemoryNetwork("w1", messages=MESSAGES) as network:
            stepper = Stepper()
            network.add("w2", recorder=Recorder(tmp_path / "w2.ring", worker="w2", epoch=1)).start(stepper, "stepper")
            tell(network.nodes["w1"], 5)
            stepper.tokens.release()
            await asyncio.sleep(0.01)  # one is done, and not reported yet; one is being handled; three wait
            await network.kill("w2")
            assert network.nodes["w1"].dead_letters.total == 3

    FakeClock().run(scene())


def test_the_account_is_right_again_after_a_loss() -> None:
    async def scene() -> None:
        async with MemoryNetwork("w1", "w2", messages=MESSAGES) as network:
            stepper = Stepper()
            network.nodes["w2"].start(stepper, "stepper")
            network.faults.drop(Number, times=1_000)  # nearly a window
            tell(network.nodes["w1"], 1_000)
            tell(network.nodes["w1"], 2_000)
            for _ in range(2_000):
                stepper.tokens.release()
            await asyncio.sleep(5)
            assert stepper.handled_total == 2_000
            assert network.nodes["w1"].outboxes.known("test/w2/stepper") is None

    FakeClock().run(scene())


def test_what_a_worker_had_sent_when_it_leaves_is_known_or_a_dead_letter() -> None:
    async def scene() -> None:
        async with MemoryNetwork("w1", "w2", messages=MESSAGES) as network:
            stepper = Stepper()
            network.nodes["w2"].start(stepper, "stepper")
            tell(network.nodes["w1"], 3)
            stepper.tokens.release()
            await network.nodes["w1"].until_settled(1.0)
            assert (stepper.handled_total, network.nodes["w1"].dead_letters.total) == (1, 2)

    FakeClock().run(scene())


def test_what_was_dropped_behind_one_that_is_being_handled_is_a_dead_letter_once() -> None:
    async def scene() -> None:
        async with MemoryNetwork("w1", "w2", messages=MESSAGES) as network:
            sender, recipient = network.nodes.values()
            stepper = Forgetful()
            recipient.start(stepper, "stepper")
            tell(sender, 1)
            await asyncio.sleep(0.01)  # it is being handled
            tell(sender, 5)
            await asyncio.sleep(0.01)
            assert recipient.dead_letters.total == 3
            stepper.tokens.release()
            await sender.until_settled(1.0)
            assert sender.dead_letters.total == 2  # those that wait

    FakeClock().run(scene())


@pytest.mark.parametrize("how", ["kill", "stop, then kill"])
async def test_who_is_killed_before_an_async_handler_has_begun_ends_and_answers(node: Node, how: str) -> None:
    idler = Idler()
    ref = node.start(idler, "idler")
    await idler.started
    reply = ref.ask(Open(), timeout_s=60)
    while idler.lifecycle.task is None:  # it is created with the first handler that is async, and runs a turn later
        node.turn()
    if how != "kill":
        ref.stop()
    ref.kill()
    with pytest.raises(ActorDead):
        await reply
    await idler.until_ended()
