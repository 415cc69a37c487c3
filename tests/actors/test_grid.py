"""Wake-ups that meet on a grid."""

import asyncio
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exeunt.actors.grid import COARSE_AFTER_S, COARSE_S, Wake, meet, meet_late
from exeunt.runtime.wakeups import wakeups_of


class Loop:
    """What it needs of an event loop, with a clock that is turned by hand."""

    def __init__(self, now: float) -> None:
        self.now = now
        self.timers: list[tuple[float, Any, tuple[Any, ...]]] = []
        self.failures: list[BaseException] = []

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: Any, *args: Any) -> None:
        self.timers.append((self.now + delay, callback, args))

    def call_at(self, when: float, callback: Any, *args: Any, context: Any) -> None:
        assert len(context) == 0
        self.timers.append((when, callback, args))

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.failures.append(context["exception"])

    def meet(self, delay_s: float, call: Any, *args: Any) -> tuple[Wake, float]:
        return meet(cast("asyncio.AbstractEventLoop", self), delay_s, f"for {args[0]}", call, *args)

    def arrive(self) -> None:
        """Let the only timer come."""
        ((self.now, callback, args),) = self.timers
        self.timers.clear()
        callback(*args)


@given(st.floats(0, 1e6), st.floats(0, 100))
def test_a_wake_up_is_never_late_and_little_too_early(now: float, ahead_s: float) -> None:
    loop = Loop(now)
    _, delay_s = loop.meet(ahead_s, print, "nobody")
    ((at, _, _),) = loop.timers
    assert at == pytest.approx(now + delay_s)
    assert ahead_s - COARSE_S - 1e-6 <= delay_s <= ahead_s + 1e-6
    if ahead_s <= COARSE_AFTER_S:
        assert delay_s == ahead_s


@given(st.floats(0, 1e6), st.floats(0, 100))
def test_who_may_be_late_is_so_by_little_and_never_too_early(now: float, ahead_s: float) -> None:
    loop = Loop(now)
    meet_late(cast("asyncio.AbstractEventLoop", loop), ahead_s, "for nobody", print)
    ((at, _, _),) = loop.timers
    assert now + ahead_s - 1e-6 <= at <= now + ahead_s + COARSE_S + 1e-6


def test_who_is_due_at_about_the_same_time_meets() -> None:
    loop = Loop(90.1)
    for hundredth in range(25):
        loop.meet(9.901 + hundredth / 100, print, "nobody")
    assert len(loop.timers) == 1


def test_those_who_meet_share_one_timer_and_are_each_called_once() -> None:
    loop, called = Loop(100.1), list[str]()
    for name, delay_s in (("first", 5.2), ("second", 5.3)):
        _, comes_after_s = loop.meet(delay_s, called.append, name)
        assert loop.now + comes_after_s == pytest.approx(105.25)
    loop.arrive()
    assert called == ["first", "second"]
    assert loop.timers == []
    woken = wakeups_of(cast("asyncio.AbstractEventLoop", loop))
    assert woken.counts == {"timer:for first": 1}  # one wake-up has one name: of who was the first to be expected


def test_who_has_cancelled_is_not_called_and_who_fails_fails_alone() -> None:
    loop, called = Loop(100.1), list[str]()
    cancelled, _ = loop.meet(5.2, called.append, "cancelled")
    cancelled.cancel()
    loop.meet(5.2, dict[str, int]().pop, "missing")
    loop.meet(5.2, called.append, "last")
    loop.arrive()
    assert called == ["last"]
    assert [type(failure) for failure in loop.failures] == [KeyError]


def test_what_is_near_has_a_timer_of_its_own() -> None:
    loop, called = Loop(100.1), list[str]()
    for delay_s in (COARSE_AFTER_S / 2, COARSE_AFTER_S / 2 + 0.001):
        assert loop.meet(delay_s, called.append, "soon")[1] == delay_s
    assert len(loop.timers) == 2
