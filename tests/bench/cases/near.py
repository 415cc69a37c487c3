"""This runtime in one process, with its recorder; and what one record costs."""

from __future__ import annotations

import tempfile
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from exeunt.runtime.codec import Codec
from exeunt.runtime.envelope import Envelope, Kind
from exeunt.runtime.host import stop_all
from exeunt.runtime.node import Node
from exeunt.runtime.recorder import Event, Recorder
from exeunt.runtime.wakeups import new_event_loop

from ..cast import MESSAGES, AsyncEcho, Echo, Note
from ..protocol import Figures, Measure, serve
from .program import ask_latency, ask_rate, tell_rate

_RECORDS = 50_000


def record(recorder: Recorder) -> Figures:
    envelope = Envelope(1, 1, 0, "bench/w1/$outside", "bench/w1/echo", Kind.TELL, 0, Note(1))
    began = time.perf_counter()
    for _ in range(_RECORDS):
        recorder.record(Event.SENT, envelope)
    return {"record_us": (time.perf_counter() - began) / _RECORDS * 1e6}


@asynccontextmanager
async def near() -> AsyncGenerator[dict[str, Measure]]:
    with tempfile.TemporaryDirectory() as directory:
        recorder = Recorder(Path(directory) / "ring", worker="near", epoch=1)
        node = Node("bench", "near", codec=Codec(MESSAGES), recorder=recorder)
        echo, async_echo = node.start(Echo(), "echo"), node.start(AsyncEcho(), "async-echo")
        yield {
            "local_ask": partial(ask_latency, echo, "local_ask"),
            "local_async_ask": partial(ask_latency, async_echo, "local_async_ask"),
            "local_asks": partial(ask_rate, echo, "local_asks_per_s"),
            "local_tells": partial(tell_rate, echo, "local_tells_per_s"),
            "local_async_tells": partial(tell_rate, async_echo, "local_async_tells_per_s"),
            "record": partial(record, recorder),
        }
        await stop_all(node, "shutdown")


if __name__ == "__main__":
    serve(near, loop=new_event_loop)
