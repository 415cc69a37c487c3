"""What woke an event loop has a name, whoever asked for it."""

import asyncio
import socket
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from exeunt.runtime import wakeups
from exeunt.runtime.testing.clock import FakeClock
from exeunt.runtime.wakeups import add_reader, add_writer, call_at, call_later, new_event_loop, wakeups_of


@pytest.fixture(params=["uvloop", "asyncio"])
def run(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, int]]:
    """Return a function that runs something on a worker's loop, and returns what woke it."""
    if request.param == "asyncio":
        monkeypatch.setattr(wakeups, "_kind_of_loop", lambda: asyncio.SelectorEventLoop)

    def run_it(main: Coroutine[Any, Any, object]) -> dict[str, int]:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(main)
            return wakeups_of(runner.get_loop()).counts

    return run_it


def nothing() -> None:
    """What a library might want."""


async def rest(seconds: float = 0.001) -> None:
    await asyncio.sleep(seconds)


def test_a_timer_has_the_name_of_what_it_was_set_for(run: Callable[..., dict[str, int]]) -> None:
    async def main() -> None:
        loop, done = asyncio.get_running_loop(), asyncio.Event()
        call_later(loop, 0.001, "consent check", str)
        call_later(loop, 10, "never", str).cancel()
        call_at(loop, loop.time() + 0.005, "goodbye", done.set)
        await done.wait()

    assert run(main()) == {"timer:consent check": 1, "timer:goodbye": 1}


def test_a_timer_of_asyncio_has_the_name_of_who_waits(run: Callable[..., dict[str, int]]) -> None:
    async def hurried() -> None:
        async with asyncio.timeout(0.001):
            await asyncio.sleep(10)

    async def main() -> None:
        await rest()
        await asyncio.gather(hurried(), return_exceptions=True)
        asyncio.get_running_loop().call_later(0.001, nothing)
        await asyncio.create_task(rest(0.005))

    counts = run(main())
    own = "test_a_timer_of_asyncio_has_the_name_of_who_waits.<locals>"
    assert counts == {f"timer:{own}.main": 1, f"timer:{own}.hurried": 1, "timer:nothing": 1, "timer:rest": 1}


def test_a_reading_counts_once_whatever_it_brings(run: Callable[..., dict[str, int]]) -> None:
    async def main() -> None:
        loop, done = asyncio.get_running_loop(), asyncio.Event()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)

        def read(expected: list[bytes]) -> None:
            assert [ours.recv(9) for _ in expected] == expected
            loop.remove_reader(ours.fileno())
            add_writer(loop, ours.fileno(), "room", written)

        def written() -> None:
            loop.remove_writer(ours.fileno())
            done.set()

        with ours, theirs:
            theirs.send(b"one")
            theirs.send(b"two")
            add_reader(loop, ours.fileno(), "udp", read, [b"one", b"two"])
            await done.wait()

    assert run(main()) == {"udp": 1, "room": 1}


def test_another_thread_is_a_cause(run: Callable[..., dict[str, int]]) -> None:
    async def main() -> None:
        loop, done = asyncio.get_running_loop(), asyncio.Event()
        thread = threading.Thread(target=loop.call_soon_threadsafe, args=(done.set,))
        thread.start()
        await done.wait()
        thread.join()

    assert run(main()) == {"thread": 1}


def test_what_follows_from_a_wake_up_is_none(run: Callable[..., dict[str, int]]) -> None:
    async def main() -> None:
        for _ in range(3):
            await asyncio.sleep(0)
        await asyncio.gather(*(asyncio.sleep(0) for _ in range(3)))

    assert run(main()) == {}


def test_any_loop_counts_what_is_asked_for_by_name() -> None:
    async def main() -> dict[str, int]:
        loop = asyncio.get_running_loop()
        call_later(loop, 3600, "an hour", str)
        await asyncio.sleep(3601)
        return wakeups_of(loop).counts

    assert FakeClock().run(main()) == {"timer:an hour": 1}


def test_what_a_timer_raises_is_the_loops_affair() -> None:
    async def main() -> tuple[dict[str, int], list[str]]:
        loop, told = asyncio.get_running_loop(), list[str]()
        loop.set_exception_handler(lambda _loop, context: told.append(repr(context["exception"])))
        call_later(loop, 1, "fault", dict[str, int]().pop, "missing")
        await asyncio.sleep(2)
        return wakeups_of(loop).counts, told

    assert FakeClock().run(main()) == ({"timer:fault": 1}, ["KeyError('missing')"])
