"""pykka's own actors, threads of one process: what this runtime's actors descend from."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import psutil
import pykka

from ..protocol import ASKS, BODY, TELLS, Figures, Measure, latency, serve, times_ns

_CROWD = 1_000  # a thread each


class Echo(pykka.ThreadingActor):
    use_daemon_thread = True

    def on_receive(self, message: object) -> object:
        return message


class Idle(pykka.ThreadingActor):
    use_daemon_thread = True


def crowd() -> Figures:
    process = psutil.Process()
    before = process.memory_full_info().uss
    began = time.perf_counter()
    actors = [Idle.start() for _ in range(_CROWD)]
    took = time.perf_counter() - began
    used = process.memory_full_info().uss - before
    for actor in actors:
        actor.stop(block=False)
    return {"actor_bytes": used / _CROWD, "actors_started_per_s": _CROWD / took}


@asynccontextmanager
async def threads() -> AsyncGenerator[dict[str, Measure]]:
    echo = Echo.start()

    def ask() -> Figures:
        return latency(times_ns(lambda: echo.ask(BODY), ASKS), "local_ask")

    def tells() -> Figures:
        count = TELLS // 2
        began = time.perf_counter()
        for _ in range(count):
            echo.tell(BODY)
        echo.ask(BODY)
        return {"local_tells_per_s": count / (time.perf_counter() - began)}

    yield {"local_ask": ask, "local_tells": tells, "crowd": crowd}
    echo.stop()


if __name__ == "__main__":
    serve(threads)
