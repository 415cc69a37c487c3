"""The timer of a connection: what it wakes for, and when it is looked after while packets come thick and fast."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from exeunt.actors.peer.alarm import LOOK_S, THICK, Alarm
from exeunt.runtime.testing import FakeClock
from exeunt.runtime.wakeups import wakeups_of


class Loop:
    """Notes what is to be called, and when."""

    def __init__(self) -> None:
        self.now = 100.0
        self.calls: list[tuple[float, Callable[[], None]]] = []

    def call_later(self, delay_s: float, call: Callable[..., None], *args: Any) -> Loop:
        self.calls.append((self.now + delay_s, lambda: call(*args)))
        return self

    def cancel(self) -> None:
        del self.calls[-1:]


@pytest.fixture
def loop() -> Loop:
    return Loop()


def as_loop(loop: Loop) -> asyncio.AbstractEventLoop:
    return cast("asyncio.AbstractEventLoop", loop)


def test_few_packets_are_looked_after_one_by_one(loop: Loop) -> None:
    alarm = Alarm(is_coarse=False)
    for _ in range(10 * THICK):
        assert not alarm.may_wait(as_loop(loop), loop.now, lambda: None)
        loop.now += LOOK_S / (THICK - 1)
    assert loop.calls == []


def test_of_many_one_look_is_enough_and_it_comes_in_time(loop: Loop) -> None:
    alarm, woken = Alarm(is_coarse=False), list[float]()
    alarm.set(as_loop(loop), (loop.now + 60, "rekey"), loop.now, lambda: None)
    began = loop.now
    waited = [alarm.may_wait(as_loop(loop), loop.now, lambda: woken.append(loop.now)) for _ in range(100)]
    assert waited == [False] * THICK + [True] * (100 - THICK)
    ((due, ring),) = loop.calls
    assert due == pytest.approx(began + LOOK_S)
    loop.calls.clear()
    loop.now = due
    ring()
    assert woken == [due]
    assert wakeups_of(as_loop(loop)).counts == {"timer:thick traffic": 1}
    loop.now += LOOK_S / 10
    assert not alarm.may_wait(as_loop(loop), loop.now, lambda: None), "another moment has begun"


def test_what_is_due_sooner_stays_so(loop: Loop) -> None:
    alarm = Alarm(is_coarse=False)
    alarm.set(as_loop(loop), (loop.now + LOOK_S / 4, "goodbye is repeated"), loop.now, lambda: None)
    before = list(loop.calls)
    assert [alarm.may_wait(as_loop(loop), loop.now, lambda: None) for _ in range(2 * THICK)][-1]
    assert loop.calls == before


@pytest.mark.parametrize("is_coarse", [False, True])
def test_a_wake_up_has_the_name_of_what_it_was_set_for(is_coarse: bool) -> None:
    async def main() -> tuple[list[float], dict[str, int]]:
        loop, rung = asyncio.get_running_loop(), list[float]()

        def wake() -> None:
            rung.append(loop.time())

        alarm = Alarm(is_coarse=is_coarse)
        alarm.set(loop, (120.0, "rekey"), 0.0, wake)
        alarm.set(loop, (10.0, "liveness"), 0.0, wake)  # is sooner: takes its place
        alarm.set(loop, (25.0, "idle"), 0.0, wake)  # is later: the one that is set stays
        await asyncio.sleep(60)
        alarm.set(loop, (60.5, "goodbye is repeated"), 60.0, wake)
        await asyncio.sleep(60)
        return rung, wakeups_of(loop).counts

    rung, counts = FakeClock().run(main())
    assert rung == [10.0, 60.5]
    woken = {"timer:liveness": 1, "timer:goodbye is repeated": 1}
    # A point of the grid stays when nobody is expected there any more.
    assert counts == ({**woken, "timer:rekey": 1} if is_coarse else woken)
