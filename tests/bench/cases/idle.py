"""A program with four workers and nothing to do: its CPU, and the memory that each worker has to itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import psutil

from exeunt.runtime.wakeups import new_event_loop

from ..protocol import Figures, Measure, serve
from .crowd import busy_percent
from .program import child, program

_WORKERS = ("w1", "w2", "w3", "w4")
_SETTLE_S = 0.5
_WATCH_S = 5.0


async def rest() -> Figures:
    async with program([child("Echo", worker) for worker in _WORKERS], _WORKERS) as supervisor:
        await asyncio.sleep(_SETTLE_S)
        everybody = [psutil.Process(), *psutil.Process().children(recursive=True)]
        busy = await busy_percent(everybody, _WATCH_S)
        private = [psutil.Process(worker.pid).memory_full_info().uss for worker in supervisor.processes.values()]
        return {"idle_cpu_percent": busy, "worker_private_mb": max(private) / 1e6}


@asynccontextmanager
async def idle() -> AsyncGenerator[dict[str, Measure]]:
    yield {"idle": rest}


if __name__ == "__main__":
    serve(idle, loop=new_event_loop)
