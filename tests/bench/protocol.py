"""How the benchmark talks to a peer: JSON lines, a measurement's name in, its figures out.

Each peer is a process of its own, so that one's threads, imports and garbage don't slow another, and a peer that
cannot be installed or hangs spoils nothing but its own figures. What a peer prints goes to its log, not into the
answers.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from typing import Any

Figures = dict[str, float]
Measure = Callable[[], Figures | Awaitable[Figures]]
Peer = AbstractAsyncContextManager[dict[str, Measure]]

ASKS = 1_000
"""Round trips one after another; the first tenth warms up and isn't counted."""
OUTSTANDING = 100
ROUNDS_OF_ASKS = 100
"""Asks of each of the `OUTSTANDING` askers."""
TELLS = 100_000
TURN = 1_000
"""Tells between two turns of the loop: who tells in a loop has to let the loop send."""
BODY = bytes(64)


def serve(open_peer: Callable[[], Peer], *, loop: Callable[[], asyncio.AbstractEventLoop] | None = None) -> None:
    """Be a peer: open it, answer measurements until standard input ends, close it."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(_serve(open_peer, answers))


async def _serve(open_peer: Callable[[], Peer], answers: Any) -> None:
    def say(document: dict[str, Any]) -> None:
        answers.write(json.dumps(document) + "\n")
        answers.flush()

    read = asyncio.get_running_loop().run_in_executor
    async with open_peer() as measures:
        say({"ready": sorted(measures)})
        while line := await read(None, sys.stdin.readline):
            try:
                found = measures[json.loads(line)["measure"]]()
                say({"figures": await found if inspect.isawaitable(found) else found})
            except Exception as error:  # noqa: BLE001 - whatever it is, the table says it
                say({"error": f"{type(error).__name__}: {error}"})


def latency(times_ns: Iterable[int], prefix: str = "ask") -> Figures:
    """Return median and 99th percentile of what was measured, without the first tenth."""
    values = list(times_ns)
    counted = sorted(values[len(values) // 10 :])
    return {
        f"{prefix}_p50_us": statistics.median(counted) / 1000,
        f"{prefix}_p99_us": counted[int(len(counted) * 0.99)] / 1000,
    }


def times_ns(call: Callable[[], object], count: int = ASKS) -> list[int]:
    """Measure a blocking call again and again."""
    found: list[int] = []
    for _ in range(count):
        began = time.perf_counter_ns()
        call()
        found.append(time.perf_counter_ns() - began)
    return found


async def awaited_times_ns(call: Callable[[], Awaitable[object]], count: int = ASKS) -> list[int]:
    """Measure an awaited call again and again."""
    found: list[int] = []
    for _ in range(count):
        began = time.perf_counter_ns()
        await call()
        found.append(time.perf_counter_ns() - began)
    return found


async def asks_per_s(call: Callable[[], Awaitable[object]], each: int = ROUNDS_OF_ASKS) -> float:
    """Keep `OUTSTANDING` asks under way; return how many were answered in a second."""

    async def asker() -> None:
        for _ in range(each):
            await call()

    await asyncio.gather(*(asker() for _ in range(OUTSTANDING)))  # warms up
    began = time.perf_counter()
    await asyncio.gather(*(asker() for _ in range(OUTSTANDING)))
    return OUTSTANDING * each / (time.perf_counter() - began)
