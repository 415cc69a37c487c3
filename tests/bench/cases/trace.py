"""Tells with the flight recorder and without, of two programs in turn: what tracing costs."""

from __future__ import annotations

import statistics
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial

from exeunt.runtime import Ref
from exeunt.runtime.wakeups import new_event_loop

from ..cast import Mute
from ..protocol import Figures, Measure, serve
from .program import child, program, tells_per_s

_TURNS = 4


async def overhead(recorded: Ref, muted: Ref) -> Figures:
    on: list[float] = []
    off: list[float] = []
    for _ in range(_TURNS):
        on.append(await tells_per_s(recorded))
        off.append(await tells_per_s(muted))
    with_trace, without = statistics.median(on), statistics.median(off)
    return {"trace_overhead_percent": (1 - with_trace / without) * 100, "untraced_tells_per_s": without}


@asynccontextmanager
async def trace() -> AsyncGenerator[dict[str, Measure]]:
    async with program([child("Echo")]) as recorded, program([child("Echo")]) as muted:
        await muted.ref("Echo").ask(Mute())
        muted.node.recorder = None
        yield {"trace": partial(overhead, recorded.ref("Echo"), muted.ref("Echo"))}


if __name__ == "__main__":
    serve(trace, loop=new_event_loop)
