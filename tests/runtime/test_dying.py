"""Real worker processes die, and the supervisor says what they had left to be said; those that leave are not quoted.

Prints what it cost: `pytest -s tests/runtime/test_dying.py`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import statistics
import time
from collections.abc import Iterator
from typing import Any

import pytest
from tests.runtime.conftest import SupervisorFactory
from tests.runtime.troupe import Die, Number, Open

from exeunt.runtime import ChildSpec, ExeuntError, Restart
from exeunt.runtime.last_words import REPEATS_AT_S

pytestmark = pytest.mark.slow
PROMISED_S = 0.25


@pytest.fixture
def ears() -> Iterator[list[socket.socket]]:
    """Five, since one has not the room for 500 datagrams at once."""
    ears = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(5)]
    for ear in ears:
        ear.bind(("127.0.0.1", 0))
        ear.setblocking(False)
    yield ears
    for ear in ears:
        ear.close()


@pytest.fixture
def ear(ears: list[socket.socket]) -> socket.socket:
    return ears[0]


def mortal(*ears: socket.socket, count: int = 1) -> ChildSpec:
    args: dict[str, Any] = {"ports": [ear.getsockname()[1] for ear in ears], "count": count}
    return ChildSpec(
        id="mortal", worker="w1", start="tests.runtime.troupe:Mortal", args=args, restart=Restart.TEMPORARY
    )


async def hear(ear: socket.socket, within_s: float = 5.0) -> bytes:
    async with asyncio.timeout(within_s):
        return await asyncio.get_running_loop().sock_recv(ear, 2048)


async def test_a_killed_worker_is_spoken_for(supervise: SupervisorFactory, ear: socket.socket) -> None:
    took_ms: list[float] = []
    for _ in range(5):
        supervisor = await supervise(mortal(ear))
        began = time.monotonic()
        os.kill(supervisor.processes["w1"].pid, signal.SIGKILL)
        await hear(ear)
        took_ms.append((time.monotonic() - began) * 1000)
        for _ in range(len(REPEATS_AT_S) - 1):
            await hear(ear)
        await supervisor.leave()
    median, worst = statistics.median(took_ms), max(took_ms)
    print(f"\nfrom SIGKILL to the first datagram: median {median:.1f} ms, worst {worst:.1f} ms")
    assert worst / 1000 < PROMISED_S


async def test_500_connections_are_spoken_for(supervise: SupervisorFactory, ears: list[socket.socket]) -> None:
    supervisor = await supervise(mortal(*ears, count=500))
    took: Number = await supervisor.ref("mortal").ask(Open())
    began = time.monotonic()
    os.kill(supervisor.processes["w1"].pid, signal.SIGKILL)
    heard: set[bytes] = set()
    await hear(ears[0])
    first_ms = (time.monotonic() - began) * 1000
    for ear in ears:
        ours = 0
        while ours < 100:
            datagram = await hear(ear)
            ours += datagram[:2] not in heard
            heard.add(datagram[:2])
    all_ms = (time.monotonic() - began) * 1000
    print(f"\n500 deposits: {took.n / 1000:.1f} us each; after SIGKILL ", end="")
    print(f"the first is heard in {first_ms:.1f} ms, the last in {all_ms:.1f} ms")
    assert len(heard) == 500
    assert all_ms / 1000 < PROMISED_S


async def test_a_worker_that_ends_by_itself_is_spoken_for(supervise: SupervisorFactory, ear: socket.socket) -> None:
    supervisor = await supervise(mortal(ear))
    with pytest.raises(ExeuntError):
        await supervisor.ref("mortal").ask(Die())
    await hear(ear)


async def test_a_worker_that_leaves_is_not(supervise: SupervisorFactory, ear: socket.socket) -> None:
    supervisor = await supervise(mortal(ear))
    await supervisor.leave()
    with pytest.raises(BlockingIOError):
        ear.recv(64)


async def test_the_program_does_not_end_in_the_middle_of_the_words(
    supervise: SupervisorFactory, ear: socket.socket
) -> None:
    """`force` kills everybody: nobody waits for anybody then, except for a fifth of a second for this."""
    supervisor = await supervise(mortal(ear))
    supervisor.force()
    outcome = await supervisor.wait()
    assert outcome.failed
    for _ in REPEATS_AT_S:
        ear.recv(64)


def in_confidence(ear: socket.socket) -> list[ChildSpec]:
    """One who is told, in a worker of its own, and one who has something to tell."""
    port = ear.getsockname()[1]
    told: dict[str, Any] = {"to": "t/w2/confidant", "words": {"a": b"one", "b": b"two"}}
    return [
        ChildSpec(id="confidant", worker="w2", start="tests.runtime.troupe:Confidant", args={"port": port}),
        ChildSpec(
            id="testator", worker="w1", start="tests.runtime.troupe:Testator", args=told, restart=Restart.TEMPORARY
        ),
    ]


async def test_an_actor_of_another_worker_is_told(supervise: SupervisorFactory, ear: socket.socket) -> None:
    supervisor = await supervise(*in_confidence(ear))
    began = time.monotonic()
    os.kill(supervisor.processes["w1"].pid, signal.SIGKILL)
    assert await hear(ear) == b"w1 a one"
    took_ms = (time.monotonic() - began) * 1000
    assert await hear(ear) == b"w1 b two"
    print(f"\nfrom SIGKILL to what the actor did: {took_ms:.1f} ms")
    await supervisor.leave()
    with pytest.raises(BlockingIOError):
        ear.recv(64)  # who left has nothing more to say, and it is told once


async def test_who_is_told_lives_that_long_when_all_are_killed(
    supervise: SupervisorFactory, ear: socket.socket
) -> None:
    supervisor = await supervise(*in_confidence(ear))
    supervisor.force()
    outcome = await supervisor.wait()
    assert outcome.failed
    assert not supervisor.processes
    assert {ear.recv(64), ear.recv(64)} == {b"w1 a one", b"w1 b two"}


async def test_who_does_not_listen_is_killed_all_the_same(supervise: SupervisorFactory, ear: socket.socket) -> None:
    supervisor = await supervise(*in_confidence(ear))
    deaf = supervisor.processes["w2"].pid
    os.kill(deaf, signal.SIGSTOP)
    supervisor.force()
    outcome = await supervisor.wait()
    assert outcome.failed
    assert not supervisor.processes
    with pytest.raises(BlockingIOError):
        ear.recv(64)


async def test_inline_workers_have_nobody_to_speak_for_them(supervise: SupervisorFactory, ear: socket.socket) -> None:
    supervisor = await supervise(mortal(ear), engine="inline")
    took: Number = await supervisor.ref("mortal").ask(Open())  # it could deposit, and it came to nothing
    assert took.n >= 0
    assert list(supervisor.directories.ipc.iterdir()) == []
    await supervisor.leave()
    with pytest.raises(BlockingIOError):
        ear.recv(64)
