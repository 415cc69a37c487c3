"""Programs to be measured: supervisor here, workers in processes, everything below a directory that goes away."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from exeunt.runtime import ChildSpec, Directories, Ref, Supervisor, WorkerSpec

from ..cast import Count, Note, Ping
from ..protocol import TELLS, TURN, Figures, asks_per_s, awaited_times_ns, latency


def child(actor: str, worker: str = "w1") -> ChildSpec:
    """Return the spec of `cast`'s actor of that class; its id is the class's name."""
    return ChildSpec(
        id=actor if worker == "w1" else f"{actor}-{worker}", worker=worker, start=f"tests.bench.cast:{actor}"
    )


@asynccontextmanager
async def program(children: Sequence[ChildSpec], workers: Sequence[str] = ("w1",)) -> AsyncGenerator[Supervisor]:
    """Run a program; at the end it has left."""
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        supervisor = Supervisor(
            "bench",
            workers=[WorkerSpec(name=name) for name in workers],
            children=children,
            directories=Directories(ipc=root / "ipc", logs=root / "log", traces=root / "trace"),
            messages=["tests.bench.cast:MESSAGES"],
            preload=["tests.bench.cast"],
            log_level="CRITICAL",
        )
        await supervisor.start()
        try:
            yield supervisor
        finally:
            await supervisor.leave()


async def ask_latency(ref: Ref, prefix: str) -> Figures:
    return latency(await awaited_times_ns(lambda: ref.ask(Ping(1))), prefix)


async def ask_rate(ref: Ref, name: str) -> Figures:
    return {name: await asks_per_s(lambda: ref.ask(Ping(1)))}


async def tell_rate(ref: Ref, name: str) -> Figures:
    """Tell in a loop, letting the loop send now and then, until the last was handled. None may be lost."""
    return {name: await tells_per_s(ref)}


async def tells_per_s(ref: Ref) -> float:
    before = (await ref.ask(Count(), timeout_s=60)).number
    began = time.perf_counter()
    for number in range(TELLS):
        ref.tell(Note(number))
        if number % TURN == 0:
            await asyncio.sleep(0)
    after = (await ref.ask(Count(), timeout_s=60)).number
    took = time.perf_counter() - began
    assert after - before == TELLS, f"{TELLS - after + before} tells were lost"
    return TELLS / took
