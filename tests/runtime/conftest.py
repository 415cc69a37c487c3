"""Nodes without a transport, rings, and supervisors with real processes."""

import asyncio
import contextlib
import importlib
import importlib.util
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterable
from pathlib import Path
from typing import Any

import psutil
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

RAY_IS_MISSING = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="ray is not installed: pip install 'exeunt[ray]'"
)
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


@contextlib.contextmanager
def ray_cluster(*machines: dict[str, float]) -> Generator[Any]:
    """A Ray cluster of local nodes with these resources beside the one where we are, each at a loopback address."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")  # says nothing to nobody
        patch.setenv("RAY_DISABLE_IMPORT_WARNING", "1")
        ray: Any = importlib.import_module("ray")
        # Not 127.0.0.1: Ray replaces that by the address of a network interface.
        node = {"num_cpus": 1, "object_store_memory": 80_000_000, "include_dashboard": False}
        cluster = importlib.import_module("ray.cluster_utils").Cluster(
            initialize_head=True, head_node_args={**node, "node_ip_address": "127.0.0.2"}
        )
        try:
            for number, resources in enumerate(machines, 3):
                cluster.add_node(**node, node_ip_address=f"127.0.0.{number}", resources=resources)
            ray.init(address=cluster.address, _node_ip_address="127.0.0.2", log_to_driver=False, logging_level="error")
            yield cluster
        finally:
            ray.shutdown()
            cluster.shutdown()


def our_processes() -> list[psutil.Process]:
    """Return everything below this process, but not what belongs to a Ray cluster, which comes and goes as it likes."""
    found: list[psutil.Process] = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.name().startswith("t:") or not any(_of_ray(one) for one in (process, *process.parents())):
                found.append(process)
    return found


def _of_ray(process: psutil.Process) -> bool:
    return any("/ray/" in part for part in process.cmdline()) or process.name().startswith("ray::")


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
