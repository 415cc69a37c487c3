"""The public test kit: clock, network, faults, probe, rest."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.runtime import troupe
from tests.runtime.troupe import Gate, NotRegistered, Number, Open, Player, Relay, Said, Say, Watcher, WatchIt

from exeunt.runtime import ActorDead, AskTimeout, Refused, Terminated
from exeunt.runtime.errors import UnknownMessage
from exeunt.runtime.testing import FakeClock, MemoryNetwork, Probe, wait_until_idle


@pytest.fixture
async def network() -> AsyncIterator[MemoryNetwork]:
    async with MemoryNetwork("a", "b", messages=troupe.MESSAGES) as network:
        yield network


# --- the clock ---


def test_time_stands_until_it_is_moved() -> None:
    clock = FakeClock(10)
    calls: list[tuple[str, float]] = []

    def note(name: str) -> None:
        calls.append((name, clock.monotonic_s()))

    for name, delay_s in (("second", 2), ("first", 1), ("first too", 1), ("late", 5), ("past", -3)):
        clock.call_later(delay_s, note, name)
    clock.call_later(1, calls.append, ("cancelled", 0.0)).cancel()
    assert calls == []
    clock.advance(2)
    assert calls == [("past", 10), ("first", 11), ("first too", 11), ("second", 12)]
    assert (clock.monotonic_s(), clock.next_due_s) == (12, 15)
    with pytest.raises(ValueError, match="backwards"):
        clock.advance(-1)


def test_a_call_that_sets_another_is_followed() -> None:
    clock, at = FakeClock(), list[float]()

    def tick() -> None:
        at.append(clock.monotonic_s())
        clock.call_later(1.0, tick)

    clock.call_later(1.0, tick)
    clock.advance(3.5)
    assert at == [1.0, 2.0, 3.0]


@given(st.lists(st.tuples(st.floats(0, 100), st.booleans()), max_size=20), st.lists(st.floats(0, 30), max_size=8))
@settings(max_examples=2_000, deadline=None)
def test_calls_are_made_in_order_once_and_in_time(alarms: list[tuple[float, bool]], steps: list[float]) -> None:
    clock, made = FakeClock(), list[tuple[float, int]]()

    def note(number: int) -> None:
        made.append((clock.monotonic_s(), number))

    for number, (delay_s, cancelled) in enumerate(alarms):
        alarm = clock.call_later(delay_s, note, number)
        if cancelled:
            alarm.cancel()
    for step in [0.0, *steps]:
        clock.advance(step)
    due = [(delay_s, number) for number, (delay_s, cancelled) in enumerate(alarms) if not cancelled]
    assert made == sorted(one for one in due if one[0] <= clock.monotonic_s())


def test_below_run_an_hour_takes_no_time() -> None:
    clock = FakeClock()
    began = time.monotonic()

    async def main() -> list[float]:
        rung = asyncio.Event()
        clock.call_later(7200, rung.set)
        loop = asyncio.get_running_loop()
        at = [loop.time()]
        await asyncio.sleep(3600)
        at.append(loop.time())
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.Event().wait(), 60)
        at.append(loop.time())
        await rung.wait()
        return [*at, loop.time()]

    assert clock.run(main()) == [0, 3600, 3660, 7200]
    assert time.monotonic() - began < 5


def test_below_run_threads_are_waited_for_if_asked() -> None:
    async def main() -> float:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(60):
            await asyncio.to_thread(lambda: None)
        return loop.time()

    assert FakeClock().run(main(), threshold_s=2.0) == 0.0


def test_below_run_a_deadlock_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exeunt.runtime.testing.clock._DEADLOCK_S", 0.01)

    async def main() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(RuntimeError, match="neither time nor anything else"):
        FakeClock().run(main())


def test_an_asks_deadline_takes_no_time_below_run() -> None:
    async def main() -> float:
        async with MemoryNetwork("a", "b", messages=troupe.MESSAGES) as network:
            network.nodes["b"].start(Gate(), "gate")
            with pytest.raises(AskTimeout):
                await network.ref("b/gate").ask(Open(), timeout_s=900)
            return asyncio.get_running_loop().time()

    assert FakeClock().run(main()) >= 900


# --- the network ---


async def test_nodes_talk_as_workers_do(network: MemoryNetwork) -> None:
    network.nodes["a"].start(Player(), "p")
    network.nodes["b"].start(Player(), "p")
    said: Said = await network.ref("b/p").ask(Relay("test/a/p", "there and back"))
    assert said.text == "there and back"
    with pytest.raises(UnknownMessage):  # what could not cross between processes does not cross here
        await network.ref("b/p").ask(NotRegistered())
    with pytest.raises(ActorDead, match="no such worker"):
        await network.ref("c/p").ask(Say("?"))


async def test_nothing_is_shared_between_workers(network: MemoryNetwork) -> None:
    probe = Probe.on(network.nodes["b"])
    message = Say("x" * 100)
    network.ref("b/probe").tell(message)
    got = await probe.expect(Say)
    assert got == message
    assert got is not message


async def test_what_is_dropped_is_counted_and_the_rest_arrives(network: MemoryNetwork) -> None:
    probe = Probe.on(network.nodes["b"])
    fault = network.faults.drop(Number, to="test/b/probe", times=2)
    for n in range(4):
        network.ref("b/probe").tell(Number(n))
    await network.until_idle()
    assert probe.received == [Number(2), Number(3)]
    assert fault.hits == 2


async def test_a_dropped_ask_ends_by_its_deadline(network: MemoryNetwork) -> None:
    network.nodes["b"].start(Player(), "p")
    fault = network.faults.drop(Say)
    with pytest.raises(AskTimeout):
        await network.ref("b/p").ask(Say("?"), timeout_s=0.01)
    fault.lift()
    assert (await network.ref("b/p").ask(Say("!"))).text == "!"


def test_a_delay_holds_up_what_is_behind_it() -> None:
    async def main() -> tuple[list[Any], float]:
        async with MemoryNetwork("a", "b", messages=troupe.MESSAGES) as network:
            probe = Probe.on(network.nodes["b"])
            network.faults.delay(Number, by_s=30, times=1)
            network.ref("b/probe").tell(Number(1))
            network.ref("b/probe").tell(Say("behind it"))
            assert await probe.expect(Number, within_s=31) == Number(1)
            assert await probe.expect(Say) == Say("behind it")
            return probe.received, asyncio.get_running_loop().time()

    received, now_s = FakeClock().run(main())
    assert received == [Number(1), Say("behind it")]
    assert now_s == pytest.approx(30)


async def test_a_duplicate_of_an_answer_is_dropped(network: MemoryNetwork) -> None:
    player = Player()
    network.nodes["b"].start(player, "p")
    twice = network.faults.duplicate(Said)
    assert (await network.ref("b/p").ask(Say("once"))).text == "once"
    await network.until_idle()
    assert twice.hits == 1
    network.faults.duplicate(Say, times=1)
    network.ref("b/p").tell(Say("again"))
    await network.until_idle()
    assert player.log == ["once", "again", "again"]


async def test_parted_workers_hear_nothing_until_they_are_joined(network: MemoryNetwork) -> None:
    here, there = Probe.on(network.nodes["a"]), Probe.on(network.nodes["b"])
    faults = network.faults.part("test/a", "test/b")
    here.tell(there.ref, Say("hello?"))
    there.tell(here.ref, Say("hello?"))
    await network.until_idle()
    assert (here.received, there.received) == ([], [])
    assert [fault.hits for fault in faults] == [1, 1]
    network.faults.lift_all()
    here.tell(there.ref, Say("hello"))
    await there.expect(Say)
    assert there.last_sender == here.ref


async def test_a_killed_worker_says_nothing_and_may_have_a_successor(network: MemoryNetwork) -> None:
    probe = Probe.on(network.nodes["a"])
    player, gate = Player(), Gate()
    node = network.nodes["b"]
    node.start(player, "p")
    waiting = network.ref("b/gate").ask(Open()) if node.start(gate, "gate") else None
    probe.watch("test/b/p")
    await gate.entered.wait()
    await network.kill("b")
    assert await probe.expect(Terminated) == Terminated("test/b/p", "worker_died")
    assert waiting is not None
    with pytest.raises(ActorDead, match="its worker died"):
        await waiting
    assert player.log == []  # no on_stop
    assert gate.cancelled
    network.add("b").start(Player(), "p")
    assert (await network.ref("b/p").ask(Say("anew"))).text == "anew"
    probe.expect_nothing()
    with pytest.raises(ValueError, match="already"):
        network.add("b")
    with pytest.raises(KeyError):
        await network.kill("c")


# --- probe and rest ---


async def test_a_probe_answers_as_told(network: MemoryNetwork) -> None:
    probe = Probe.on(network.nodes["b"])
    probe.answers[Number] = lambda message: Number(message.n + 1)
    probe.answers[Say] = Said("always this")

    def refuse(_message: Any) -> None:
        raise Refused("no", "never")

    probe.answers[Open] = refuse
    ref = network.ref("b/probe")
    assert await ref.ask(Number(1)) == Number(2)
    assert (await ref.ask(Say("?"))).text == "always this"
    with pytest.raises(Refused, match="never"):
        await ref.ask(Open())
    assert await ref.ask(Relay("x", "y")) is None
    assert [type(message) for message in probe.received] == [Number, Say, Open, Relay]


async def test_a_probe_says_what_it_got_instead(network: MemoryNetwork) -> None:
    probe = Probe.on(network.nodes["a"])
    probe.ref.tell(Number(7))
    with pytest.raises(AssertionError, match=r"expected Say, and got Number\(n=7\)"):
        await probe.expect(Say)
    with pytest.raises(AssertionError, match=r"no Say came within 0\.01 s"):
        await probe.expect(Say, within_s=0.01)
    probe.expect_nothing()
    probe.ref.tell(Number(8))
    await network.until_idle()
    with pytest.raises(AssertionError, match="expected nothing"):
        probe.expect_nothing()


async def test_rest_is_when_all_is_handled(network: MemoryNetwork) -> None:
    watcher = Watcher()
    network.nodes["a"].start(watcher, "w")
    network.nodes["b"].start(Player(), "p")
    network.ref("a/w").tell(WatchIt("test/b/p"))
    network.ref("b/p").tell(Number(1))
    network.ref("b/p").stop("normal")
    await network.until_idle()
    assert [one.reason for one in watcher.ended] == ["normal"]


async def test_who_is_busy_is_named(network: MemoryNetwork) -> None:
    gate = Gate()
    network.nodes["b"].start(gate, "gate")
    network.ref("b/gate").tell(Open())
    with pytest.raises(TimeoutError, match=r"still busy after 0\.01 s: test/b/gate"):
        await wait_until_idle(network.nodes.values(), within_s=0.01)
    gate.gate.set()
    await network.until_idle()
