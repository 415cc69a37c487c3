"""xoscar across processes: an actor pool with one sub-process."""

from __future__ import annotations

import importlib
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from ..protocol import BODY, Figures, Measure, asks_per_s, awaited_times_ns, latency, serve

xo: Any = importlib.import_module("xoscar")
_ASKS = 1_000
_TELLS = 5_000


class Echo(xo.Actor):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()  # pyright: ignore[reportUnknownMemberType]
        self.count = 0

    def ping(self, body: bytes) -> bytes:
        return body

    def note(self, _body: bytes) -> None:
        self.count += 1

    def noted(self) -> int:
        return self.count


@asynccontextmanager
async def pool() -> AsyncGenerator[dict[str, Measure]]:
    began = time.perf_counter()
    pool = await xo.create_actor_pool("127.0.0.1", n_process=1)
    ref = await xo.create_actor(
        Echo, address=pool.external_address, uid="echo", allocate_strategy=xo.allocate_strategy.ProcessIndex(1)
    )
    await ref.ping(BODY)
    start_ms = (time.perf_counter() - began) * 1000

    async def ask() -> Figures:
        return latency(await awaited_times_ns(lambda: ref.ping(BODY), _ASKS))

    async def asks() -> Figures:
        return {"asks_per_s": await asks_per_s(lambda: ref.ping(BODY), 20)}

    async def tells() -> Figures:
        before = await ref.noted()
        began = time.perf_counter()
        for _ in range(_TELLS):
            await ref.note.tell(BODY)
        while await ref.noted() < before + _TELLS:
            pass
        return {"tells_per_s": _TELLS / (time.perf_counter() - began)}

    yield {"start": lambda: {"program_start_ms": start_ms}, "ask": ask, "asks": asks, "tells": tells}
    await pool.stop()


if __name__ == "__main__":
    serve(pool)
