"""The phases of an end: in order, each in time, whatever its tasks do."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exeunt.runtime.shutdown import STANDARD, Phase, PhaseReport, Shutdown
from exeunt.runtime.testing import FakeClock


def play(scene: Callable[[], Coroutine[Any, Any, None]]) -> None:
    FakeClock().run(scene())


def lasting(seconds: float, log: list[str], name: str) -> Callable[[str], Coroutine[Any, Any, None]]:
    async def work(reason: str) -> None:
        log.append(f"{name} {reason}")
        await asyncio.sleep(seconds)
        log.append(f"{name} done")

    return work


def idle(seconds: float) -> Callable[[str], Coroutine[Any, Any, None]]:
    log: list[str] = []
    return lasting(seconds, log, "")


def two() -> Shutdown:
    return Shutdown((Phase("first", 2), Phase("second", 3)), total_s=6)


def test_tasks_of_a_phase_run_side_by_side_and_phases_one_after_another() -> None:
    async def scene() -> None:
        shutdown, log = two(), list[str]()
        shutdown.add("second", "c", lasting(1, log, "c"))
        shutdown.add("first", "a", lasting(1.5, log, "a"))
        shutdown.add("first", "b", lasting(0.5, log, "b"))
        reports = await shutdown.run("upgrade")
        assert log == ["a upgrade", "b upgrade", "b done", "a done", "c upgrade", "c done"]
        assert reports == (PhaseReport("first", 1.5), PhaseReport("second", 1.0))

    play(scene)


def test_a_phase_past_its_deadline_is_cut_off_and_the_next_begins() -> None:
    async def scene() -> None:
        shutdown, log = two(), list[str]()
        shutdown.add("first", "slow", lasting(100, log, "slow"))
        shutdown.add("first", "quick", lasting(1, log, "quick"))
        shutdown.add("second", "next", lasting(1, log, "next"))
        reports = await shutdown.run("x")
        assert reports == (PhaseReport("first", 2.0, timed_out=("slow",)), PhaseReport("second", 1.0))
        assert log == ["slow x", "quick x", "quick done", "next x", "next done"]

    play(scene)


def test_who_does_not_heed_a_cancellation_holds_up_nobody() -> None:
    async def deaf(_reason: str) -> None:
        while True:
            try:
                await asyncio.sleep(50)
            except asyncio.CancelledError:
                await asyncio.sleep(50)
                raise RuntimeError("at last") from None

    async def scene() -> None:
        shutdown = two()
        shutdown.add("first", "deaf", deaf)
        await shutdown.run("x")
        assert asyncio.get_running_loop().time() == 2.0
        await asyncio.sleep(100)

    play(scene)


def test_one_that_fails_is_reported_and_ends_nobody_else() -> None:
    async def fails(_reason: str) -> None:
        raise ValueError

    async def scene() -> None:
        shutdown, log = two(), list[str]()
        shutdown.add("first", "fails", fails)
        shutdown.add("first", "other", lasting(1, log, "other"))
        reports = await shutdown.run("x")
        assert reports[0] == PhaseReport("first", 1.0, failed=("fails",))
        assert log == ["other x", "other done"]

    play(scene)


def test_whoever_cannot_wait_begins_with_a_later_phase() -> None:
    async def scene() -> None:
        shutdown, log = two(), list[str]()
        shutdown.add("first", "a", lasting(1, log, "a"))
        shutdown.add("second", "b", lasting(1, log, "b"))
        running = asyncio.create_task(shutdown.run("x"))
        await asyncio.sleep(0.5)
        shutdown.skip_to("second")
        shutdown.skip_to("first")  # that has passed
        reports = await running
        assert reports == (PhaseReport("first", 0.5, skipped=True), PhaseReport("second", 1.0))
        assert log == ["a x", "b x", "b done"]
        again, log = two(), list[str]()
        again.add("first", "a", lasting(1, log, "a"))
        again.skip_to("second")
        assert [one.skipped for one in await again.run("x")] == [True, False]
        assert log == []

    play(scene)


def test_one_that_has_begun_is_not_cut_off_by_its_own_name() -> None:
    async def scene() -> None:
        shutdown, log = two(), list[str]()
        shutdown.add("second", "b", lasting(2, log, "b"))
        running = asyncio.create_task(shutdown.run("x"))
        await asyncio.sleep(1)
        shutdown.skip_to("second")
        assert await running == (PhaseReport("first", 0.0), PhaseReport("second", 2.0))

    play(scene)


def test_deadlines_nest() -> None:
    with pytest.raises(ValueError, match="5 s together, which is not below 5 s"):
        Shutdown((Phase("first", 2), Phase("second", 3)), total_s=5)
    with pytest.raises(ValueError, match="one name"):
        Shutdown((Phase("first", 2), Phase("first", 3)), total_s=9)
    with pytest.raises(ValueError, match="above 0"):
        Shutdown((Phase("first", 0),), total_s=9)
    assert sum(phase.deadline_s for phase in STANDARD) < Shutdown().total_s


def test_what_does_not_exist_is_said() -> None:
    async def nothing(_reason: str) -> None:
        pass

    shutdown = two()
    with pytest.raises(KeyError):
        shutdown.add("third", "a", nothing)
    with pytest.raises(KeyError):
        shutdown.skip_to("third")
    shutdown.add("first", "a", nothing)
    with pytest.raises(ValueError, match="already"):
        shutdown.add("first", "a", nothing)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.floats(0.1, 10), st.lists(st.floats(0, 20), max_size=4)), min_size=1, max_size=5))
def test_the_whole_ends_within_its_total(plan: list[tuple[float, list[float]]]) -> None:
    async def scene() -> None:
        phases = [Phase(f"p{number}", deadline_s) for number, (deadline_s, _) in enumerate(plan)]
        shutdown = Shutdown(phases, total_s=sum(deadline_s for deadline_s, _ in plan) + 0.001)
        for number, (_, tasks) in enumerate(plan):
            for index, seconds in enumerate(tasks):
                shutdown.add(f"p{number}", str(index), idle(seconds))
        reports = await shutdown.run("x")
        assert asyncio.get_running_loop().time() <= shutdown.total_s
        for (deadline_s, tasks), report in zip(plan, reports, strict=True):
            assert set(report.timed_out) >= {str(n) for n, seconds in enumerate(tasks) if seconds > deadline_s + 1e-6}
            assert not report.timed_out or max(tasks) >= deadline_s - 1e-6

    play(scene)
