"""This runtime across processes: ask, tell, with sync and async handlers."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial

from exeunt.runtime.wakeups import new_event_loop

from ..protocol import Measure, serve
from .program import ask_latency, ask_rate, child, program, tell_rate


@asynccontextmanager
async def far() -> AsyncGenerator[dict[str, Measure]]:
    async with program([child("Echo"), child("AsyncEcho")]) as supervisor:
        echo, async_echo = supervisor.ref("Echo"), supervisor.ref("AsyncEcho")
        yield {
            "ask": partial(ask_latency, echo, "ask"),
            "asks": partial(ask_rate, echo, "asks_per_s"),
            "tells": partial(tell_rate, echo, "tells_per_s"),
            "async_ask": partial(ask_latency, async_echo, "async_ask"),
            "async_asks": partial(ask_rate, async_echo, "async_asks_per_s"),
            "async_tells": partial(tell_rate, async_echo, "async_tells_per_s"),
        }


if __name__ == "__main__":
    serve(far, loop=new_event_loop)
