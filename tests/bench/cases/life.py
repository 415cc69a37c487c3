"""A worker's start, and its death by SIGKILL: how soon an ask that waits for it fails, and somebody answers again."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager

from exeunt.runtime import ActorDead, ExeuntError, Supervisor
from exeunt.runtime.wakeups import new_event_loop

from ..cast import Hang, Ping
from ..protocol import Figures, Measure, serve
from .program import child, program

_RETRY_S = 0.001


async def start() -> Figures:
    """Start a program: with it the fork server. Beside it a second, whose worker comes out of that fork server."""
    found: Figures = {}
    async with AsyncExitStack() as stack:
        for figure in ("program_start_ms", "worker_start_ms"):
            began = time.perf_counter()
            supervisor = await stack.enter_async_context(program([child("Echo")]))
            await supervisor.ref("Echo").ask(Ping(1))
            found[figure] = (time.perf_counter() - began) * 1000
    return found


async def kill(supervisor: Supervisor) -> Figures:
    echo = supervisor.ref("Echo")
    hanging = echo.ask(Hang(), timeout_s=30)
    await echo.ask(Ping(1))
    began = time.perf_counter()
    supervisor.processes["w1"].kill()
    with contextlib.suppress(ActorDead):
        await hanging
    noticed = time.perf_counter() - began
    while True:
        try:
            await echo.ask(Ping(1))
            break
        except ExeuntError:
            await asyncio.sleep(_RETRY_S)
    return {"kill_noticed_ms": noticed * 1000, "kill_replaced_ms": (time.perf_counter() - began) * 1000}


async def start_and_kill() -> Figures:
    found = await start()
    async with program([child("Echo")]) as supervisor:
        return {**found, **await kill(supervisor)}


@asynccontextmanager
async def life() -> AsyncGenerator[dict[str, Measure]]:
    yield {"life": start_and_kill}


if __name__ == "__main__":
    serve(life, loop=new_event_loop)
