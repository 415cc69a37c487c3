"""Messages to oneself, later."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from tests.runtime.conftest import until
from tests.runtime.troupe import Number, Open, Say

from exeunt.runtime import Actor, BlockingActor, Message, receive
from exeunt.runtime.context import current
from exeunt.runtime.node import Node
from exeunt.runtime.testing import FakeClock, MemoryNetwork
from exeunt.runtime.wakeups import wakeups_of


class Tick(Message, frozen=True):
    n: int = 0


class Clock(Actor):
    """Notes when it is told what; `Open` has it wait for the gate."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.ticks: list[tuple[float, int]] = []
        self.traces: set[int] = set()

    @receive(Tick)
    def tick(self, message: Tick) -> None:
        about = current()
        assert about is not None
        assert about.cause == 0
        self.traces.add(about.trace)
        self.ticks.append((self.node.loop.time(), message.n))

    @receive(Open)
    async def open(self, _message: Open) -> None:
        await self.gate.wait()


def play(scene: Callable[[Clock], Coroutine[Any, Any, None]]) -> None:
    """Run a scene with a clock actor, where time jumps."""

    async def main() -> None:
        async with MemoryNetwork("w", messages=[Tick, Open]) as network:
            clock = Clock()
            network.nodes["w"].start(clock, "clock")
            await clock.started
            await scene(clock)

    FakeClock().run(main())


def test_it_wakes_the_worker_in_the_name_of_its_message() -> None:
    async def scene(clock: Clock) -> None:
        clock.after(1, Tick())
        clock.every(2, Open())
        clock.after(3, Tick()).cancel()
        clock.gate.set()
        await asyncio.sleep(5)
        assert wakeups_of(clock.node.loop).counts == {"timer:Tick": 1, "timer:Open": 2}

    play(scene)


def test_one_shot() -> None:
    async def scene(clock: Clock) -> None:
        late, early = clock.after(2, Tick(2)), clock.after(1, Tick(1))
        at_once = clock.after(-1, Tick(0))
        assert late.pending
        await asyncio.sleep(1.5)
        assert not early.pending
        await asyncio.sleep(10)
        assert clock.ticks == [(0, 0), (1, 1), (2, 2)]
        assert not clock.lifecycle.timers
        late.cancel()
        at_once.cancel()

    play(scene)


def test_periodic_and_each_tick_begins_a_trace() -> None:
    async def scene(clock: Clock) -> None:
        timer = clock.every(0.5, Tick())
        await asyncio.sleep(2.25)
        assert [at for at, _ in clock.ticks] == [0.5, 1.0, 1.5, 2.0]
        assert len(clock.traces) == 4
        assert timer.pending
        timer.cancel()
        timer.cancel()
        await asyncio.sleep(10)
        assert len(clock.ticks) == 4
        assert not timer.pending

    play(scene)


def test_cancelled_in_time_it_never_comes() -> None:
    async def scene(clock: Clock) -> None:
        timer = clock.after(1, Tick())
        await asyncio.sleep(0.9)
        timer.cancel()
        await asyncio.sleep(1)
        assert clock.ticks == []

    play(scene)


def test_ticks_that_come_too_late_are_one() -> None:
    async def scene(clock: Clock) -> None:
        timer = clock.every(1, Tick())
        clock.ref.tell(Open())
        await asyncio.sleep(5.5)
        assert len(clock.mailbox) == 1
        clock.gate.set()
        await asyncio.sleep(2)
        assert [at for at, _ in clock.ticks] == [5.5, 6.0, 7.0]
        assert timer.skipped_total == 4

    play(scene)


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_timers_end_with_their_actor(how: str) -> None:
    async def scene(clock: Clock) -> None:
        timers = [clock.every(1, Tick()), clock.after(1, Tick())]
        getattr(clock.ref, how)()
        await clock.until_ended()
        assert not any(timer.pending for timer in timers)
        timers.append(clock.after(1, Tick()))
        timers.append(clock.every(1, Tick()))  # of the dead: by a task that it has left behind
        assert not any(timer.pending for timer in timers)
        await asyncio.sleep(5)
        assert clock.ticks == []
        assert clock.node.dead_letters.total == 0

    play(scene)


def test_a_draining_actor_takes_no_ticks_and_they_are_no_dead_letters() -> None:
    async def scene(clock: Clock) -> None:
        clock.every(1, Tick())
        clock.ref.tell(Open())
        await asyncio.sleep(0.1)
        clock.ref.drain()
        await asyncio.sleep(5)
        clock.gate.set()
        await clock.until_ended()
        assert clock.node.dead_letters.total == 0

    play(scene)


def test_a_timer_comes_into_a_full_mailbox() -> None:
    async def scene(clock: Clock) -> None:
        clock.mailbox.bound = 1
        clock.ref.tell(Open())
        await asyncio.sleep(0.1)
        clock.ref.tell(Tick(1))
        clock.after(1, Tick(2))
        await asyncio.sleep(2)
        clock.gate.set()
        await asyncio.sleep(1)
        assert [n for _, n in clock.ticks] == [1, 2]
        assert clock.mailbox.rejected_total == 0

    play(scene)


def test_a_period_is_longer_than_nothing() -> None:
    async def scene(clock: Clock) -> None:
        for period_s in (0, -1):
            with pytest.raises(ValueError, match="longer than nothing"):
                clock.every(period_s, Tick())

    play(scene)


async def test_a_blocking_actor_has_timers_too(node: Node) -> None:
    class Blocking(BlockingActor):
        def __init__(self) -> None:
            super().__init__()
            self.threads: set[int] = set()
            self.numbers: list[int] = []

        def on_start(self) -> None:
            self.ticking = self.every(0.001, Number(1))

        @receive(Number)
        def number(self, message: Number) -> None:
            self.threads.add(threading.get_ident())
            self.numbers.append(message.n)

        @receive(Say)
        def say(self, _message: Say) -> None:
            self.ticking.cancel()
            self.after(0.001, Number(2))

    actor = Blocking()
    ref = node.start(actor, "b")
    await until(lambda: len(actor.numbers) >= 3)
    await ref.ask(Say(""))
    await until(lambda: actor.numbers[-1] == 2)
    assert not actor.ticking.pending
    assert node.thread not in actor.threads
    await until(lambda: not actor.lifecycle.timers)
