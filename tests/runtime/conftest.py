"""Nodes without a transport, rings, and supervisors with real processes."""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

# Worker processes import `tests.runtime.troupe` as well: multiprocessing hands sys.path on to them.
sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.runtime import troupe

from exeunt.runtime import ChildSpec, Directories, Supervisor, WorkerSpec
from exeunt.runtime.codec import Codec
from exeunt.runtime.host import stop_all
from exeunt.runtime.messages import MESSAGES
from exeunt.runtime.node import Node
from exeunt.runtime.recorder import Recorder

SupervisorFactory = Callable[..., Awaitable[Supervisor]]


async def until(condition: Callable[[], object], within_s: float = 10.0) -> None:
    """Let the loop turn until something is so that nobody reports. Fails when it takes longer."""
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0)


async def wait_for_ends(pids: Iterable[int], within_s: float = 5.0) -> None:
    """Return when these processes have ended, whoever may have to reap them. Fails when it takes longer."""
    loop = asyncio.get_running_loop()
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            descriptor = os.pidfd_open(pid)
            ended = asyncio.Event()
            loop.add_reader(descriptor, ended.set)
            try:
                await asyncio.wait_for(ended.wait(), within_s)
            finally:
                loop.remove_reader(descriptor)
                os.close(descriptor)


@pytest.fixture
def codec() -> Codec:
    return Codec([*MESSAGES, *troupe.MESSAGES])


@pytest.fixture
async def node(codec: Codec, tmp_path: Path) -> AsyncIterator[Node]:
    """A process's share of the runtime, on its own, with a flight recorder."""
    recorder = Recorder(tmp_path / "n.w.1.ring", worker="w", epoch=1, capacity=4096)
    node = Node("n", "w", codec=codec, recorder=recorder)
    yield node
    await stop_all(node, "shutdown", each_s=0.1)
    recorder.close()


@pytest.fixture
def directories(tmp_path: Path) -> Directories:
    return Directories(ipc=tmp_path / "i", logs=tmp_path / "l", traces=tmp_path / "t")


@pytest.fixture
async def supervise(directories: Directories) -> AsyncIterator[SupervisorFactory]:
    """Start supervisors with real workers; whatever a test leaves running is ended."""
    started: list[Supervisor] = []

    async def start(*children: ChildSpec, **options: Any) -> Supervisor:
        names = dict.fromkeys(["w1", *(child.worker for child in children)])
        options.setdefault("workers", [WorkerSpec(name=name) for name in names])
        supervisor = Supervisor(
            "t", children=children, directories=directories, messages=["tests.runtime.troupe:MESSAGES"], **options
        )
        started.append(supervisor)
        await supervisor.start()
        return supervisor

    yield start
    for supervisor in started:
        supervisor.force()
        await supervisor.wait()
