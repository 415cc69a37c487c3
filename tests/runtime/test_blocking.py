"""Actors on threads of their own."""

import asyncio
import threading

import pytest
from tests.runtime.troupe import Context, Fail, Open, Player, Relay, Say, Thinker, Where

from exeunt.runtime import ActorDead, BlockingActor, RemoteFailure, receive
from exeunt.runtime.node import Node


async def test_all_of_it_runs_on_one_thread_of_its_own(node: Node) -> None:
    thinker = Thinker()
    ref = node.start(thinker, "t")
    for _ in range(20):
        await ref.ask(Say("x"))
    ref.stop()
    await thinker.until_ended()
    assert len(thinker.threads) == 1
    assert threading.get_ident() not in thinker.threads


async def test_its_thread_may_wait_for_an_answer(node: Node) -> None:
    node.start(Player(), "p")
    ref = node.start(Thinker(), "t")
    assert (await ref.ask(Relay("n/w/p", "through"))).text == "through"


async def test_the_error_of_what_it_asked_becomes_its_own(node: Node) -> None:
    ref = node.start(Thinker(), "t")
    with pytest.raises(ActorDead, match="nobody does not live"):
        await ref.ask(Relay("n/w/nobody", "?"))


@pytest.mark.parametrize("error", ["ValueError", "SystemExit", "StopIteration", "KeyboardInterrupt"])
async def test_what_it_raises_reaches_the_asker(node: Node, error: str) -> None:
    thinker = Thinker()
    ref = node.start(thinker, "t")
    with pytest.raises(RemoteFailure):
        await ref.ask(Fail(error), timeout_s=60)
    await thinker.until_ended()
    assert thinker.exit_reason == "crashed"


async def test_an_async_handler_is_a_mistake_that_is_told(node: Node) -> None:
    ref = node.start(Thinker(), "t")
    with pytest.raises(RemoteFailure, match="must not be async"):
        await ref.ask(Open())


async def test_its_thread_knows_the_cause(node: Node) -> None:
    ref = node.start(Thinker(), "t")
    found: Context = await ref.ask(Where())
    assert found.address == "n/w/t"
    assert found.trace == found.cause != 0
    assert found.deadline_ns > 0


async def test_a_kill_does_not_wait_for_its_thread(node: Node) -> None:
    entered, release = threading.Event(), threading.Event()

    class Stuck(BlockingActor):
        @receive(Say)
        def say(self, _message: Say) -> None:
            entered.set()
            release.wait(30)

    stuck = Stuck()
    reply = node.start(stuck, "s").ask(Say("x"), timeout_s=60)
    await asyncio.to_thread(entered.wait, 10)
    stuck.kill()
    with pytest.raises(ActorDead, match="was killed"):
        await reply
    release.set()
