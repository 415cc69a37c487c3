"""100,000 actors in one worker: how soon they live, what each takes, and what they cost while nobody speaks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import psutil

from exeunt.runtime.wakeups import new_event_loop

from ..cast import Populate
from ..protocol import Figures, Measure, serve
from .program import child, program

COUNT = 100_000
_SETTLE_S = 0.5
_WATCH_S = 3.0


async def busy_percent(processes: list[psutil.Process], seconds: float) -> float:
    """Return what share of one core these processes use together, by the kernel's count (10 ms a tick)."""

    def used_s() -> float:
        return sum(sum(process.cpu_times()[:2]) for process in processes)

    loop = asyncio.get_running_loop()
    began, before = loop.time(), used_s()
    await asyncio.sleep(seconds)
    return (used_s() - before) / (loop.time() - began) * 100


async def populate() -> Figures:
    async with program([child("Spawner")]) as supervisor:
        worker = supervisor.processes["w1"]
        process = psutil.Process(worker.pid)
        before = process.memory_full_info().uss
        populated = await supervisor.ref("Spawner").ask(Populate(COUNT), timeout_s=120)
        used = process.memory_full_info().uss - before
        await asyncio.sleep(_SETTLE_S)
        busy = await busy_percent([process], _WATCH_S)
        worker.kill()  # its end is not what is measured
        return {
            "actor_bytes": used / COUNT,
            "actors_started_per_s": COUNT / populated.took_s,
            "crowd_idle_cpu_percent": busy,
        }


@asynccontextmanager
async def crowd() -> AsyncGenerator[dict[str, Measure]]:
    yield {"crowd": populate}


if __name__ == "__main__":
    serve(crowd, loop=new_event_loop)
