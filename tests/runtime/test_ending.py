"""How an actor ends: stop, crash, kill; and what becomes of what it left."""

import asyncio

import pytest
from tests.runtime.troupe import Fail, Finish, Gate, Number, Open, Player, Refuse, Said, Say

from exeunt.runtime import Actor, ActorDead, Message, RemoteFailure, receive
from exeunt.runtime.errors import Failure
from exeunt.runtime.node import Node

Exits = list[tuple[str, str, str]]


@pytest.fixture
def exits(node: Node) -> Exits:
    """Every exit that the node reports: name, reason, the failure's type."""
    found: Exits = []

    def on_exit(actor: Actor, reason: str, failure: Failure | None) -> None:
        found.append((actor.ref.address.name, reason, failure.type if failure else ""))

    node.on_exit = on_exit
    return found


async def ended(actor: Actor) -> None:
    await actor.until_ended()


@pytest.mark.parametrize("error", ["ValueError", "SystemExit", "KeyboardInterrupt", "StopIteration", "RecursionError"])
async def test_a_handler_that_raises_ends_its_actor_only(node: Node, exits: Exits, error: str) -> None:
    player, other = Player(), Player()
    ref, survivor = node.start(player, "p"), node.start(other, "other")
    with pytest.raises(RemoteFailure) as failed:
        await ref.ask(Fail(error))
    await ended(player)
    assert failed.value.failure.type == error
    assert "on purpose" in failed.value.failure.traceback
    assert exits == [("p", "crashed", error)]
    assert player.log == [("on_crash", error)]
    assert await survivor.ask(Number(1)) == Number(1)


async def test_a_tell_that_raises_ends_the_actor_as_well(node: Node, exits: Exits) -> None:
    player = Player()
    node.start(player, "p").tell(Fail("ValueError"))
    await ended(player)
    assert exits == [("p", "crashed", "ValueError")]
    with pytest.raises(ActorDead):
        await node.local("p").ask(Say("?"))


async def test_a_cancellation_that_a_handler_meets_is_a_crash(node: Node, exits: Exits) -> None:
    class Meets(Player):
        @receive(Refuse)
        async def refuse(self, _message: Refuse) -> None:  # type: ignore[override]
            task = asyncio.create_task(asyncio.Event().wait())
            task.cancel()
            await task

    player = Meets()
    with pytest.raises(RemoteFailure, match="CancelledError"):
        await node.start(player, "p").ask(Refuse())
    await ended(player)
    assert exits == [("p", "crashed", "CancelledError")]


async def test_a_failing_on_start_ends_the_actor_and_answers_what_waits(node: Node, exits: Exits) -> None:
    class Shy(Player):
        def on_start(self) -> None:
            raise RuntimeError("stage fright")

    shy = Shy()
    reply = node.start(shy, "p").ask(Say("?"))
    with pytest.raises(ActorDead, match="did not start: stage fright"):
        await shy.started
    with pytest.raises(ActorDead, match="crashed"):
        await reply
    assert exits == [("p", "crashed", "RuntimeError")]
    assert shy.log == [("on_crash", "RuntimeError")]
    assert not shy.has_started


async def test_a_failing_on_stop_is_a_crash(node: Node, exits: Exits) -> None:
    class Clumsy(Player):
        def on_stop(self) -> None:
            raise ValueError("tripped")

    clumsy = Clumsy()
    node.start(clumsy, "p").stop()
    await ended(clumsy)
    assert exits == [("p", "crashed", "ValueError")]


async def test_a_failing_on_crash_changes_nothing(node: Node, exits: Exits) -> None:
    class Clumsy(Player):
        def on_crash(self, failure: Failure) -> None:
            raise SystemExit(4)

    clumsy = Clumsy()
    with pytest.raises(RemoteFailure, match="ValueError"):
        await node.start(clumsy, "p").ask(Fail("ValueError"))
    await ended(clumsy)
    assert exits == [("p", "crashed", "ValueError")]


async def test_a_stop_goes_ahead_of_what_waits(node: Node, exits: Exits) -> None:
    player = Player()
    ref = node.start(player, "p")
    await player.started
    asks = [ref.ask(Say("never")) for _ in range(5)]
    ref.tell(Say("never"))
    ref.stop("tired")
    for ask in asks:
        with pytest.raises(ActorDead, match=r"ended \(tired\) before it handled this"):
            await ask
    assert player.log == [("on_stop", "tired")]
    assert exits == [("p", "tired", "")]
    assert node.dead_letters.total == 1


async def test_a_stop_waits_for_the_message_that_is_handled(node: Node) -> None:
    gate = Gate()
    ref = node.start(gate, "g")
    reply = ref.ask(Open())
    await gate.entered.wait()
    ref.stop()
    gate.gate.set()
    assert await reply == Said("open")
    await ended(gate)


async def test_an_actor_stops_itself_after_the_message_it_handles(node: Node, exits: Exits) -> None:
    player = Player()
    ref = node.start(player, "p")
    first, second = ref.ask(Finish("done")), ref.ask(Say("never"))
    assert await first is None
    with pytest.raises(ActorDead):
        await second
    assert exits == [("p", "done", "")]


async def test_an_actor_may_stop_itself_in_on_start(node: Node, exits: Exits) -> None:
    class Brief(Player):
        def on_start(self) -> None:
            self.stop()

    brief = Brief()
    node.start(brief, "p")
    await ended(brief)
    assert exits == [("p", "normal", "")]
    assert brief.has_started


@pytest.mark.parametrize("in_thread", [False, True])
async def test_a_task_or_thread_stops_the_actor_that_waits(node: Node, exits: Exits, in_thread: bool) -> None:
    class Timed(Player):
        def on_start(self) -> None:
            self.work = asyncio.get_running_loop().create_task(self._work())

        async def _work(self) -> None:
            await self.started
            await self.node.local("p").ask(Number(1))
            if in_thread:
                await asyncio.to_thread(self.stop, "time is up")
            else:
                self.stop("time is up")

    timed = Timed()
    node.start(timed, "p")
    await ended(timed)
    assert exits == [("p", "time is up", "")]


async def test_a_kill_ends_a_handler_in_its_middle(node: Node, exits: Exits) -> None:
    gate = Gate()
    ref = node.start(gate, "g")
    running, waiting = ref.ask(Open()), ref.ask(Number(1))
    await gate.entered.wait()
    gate.kill()
    with pytest.raises(ActorDead, match="was killed"):
        await running
    with pytest.raises(ActorDead, match="killed"):
        await waiting
    assert gate.cancelled
    assert exits == [("g", "killed", "")]


async def test_a_second_stop_is_no_second_end(node: Node, exits: Exits) -> None:
    player = Player()
    ref = node.start(player, "p")
    ref.stop()
    ref.stop()
    await ended(player)
    ref.stop()
    assert exits == [("p", "shutdown", "")]
    assert player.log == [("on_stop", "shutdown")]


async def test_an_actor_in_on_stop_can_still_send(node: Node) -> None:
    class Polite(Player):
        async def on_stop(self) -> None:  # type: ignore[override]
            answer: Message = await self.node.local("other").ask(Say("goodbye"))
            self.log.append(answer)

    polite, other = Polite(), Player()
    node.start(other, "other")
    node.start(polite, "p").stop()
    await ended(polite)
    assert other.log == ["goodbye"]
    assert isinstance(polite.log[-1], Said)
