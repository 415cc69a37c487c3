"""Ray on this machine: one actor in a worker process."""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from ..protocol import BODY, OUTSTANDING, Figures, Measure, latency, serve, times_ns

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report to its makers
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
ray: Any = importlib.import_module("ray")
_ASKS = 300
_BATCHES = 10
_TELLS = 2_000


class Echo:
    def __init__(self) -> None:
        self.count = 0

    def ping(self, body: bytes) -> bytes:
        return body

    def note(self, _body: bytes) -> None:
        self.count += 1

    def noted(self) -> int:
        return self.count


@asynccontextmanager
async def local() -> AsyncGenerator[dict[str, Measure]]:
    began = time.perf_counter()
    ray.init(
        address="local",  # not whatever cluster somebody else runs here
        num_cpus=2,
        include_dashboard=False,
        configure_logging=False,
        _node_ip_address="127.0.0.1",
        log_to_driver=False,
    )
    try:
        echo = ray.remote(Echo).remote()
        ray.get(echo.ping.remote(BODY))
        start_ms = (time.perf_counter() - began) * 1000

        def ask() -> Figures:
            return latency(times_ns(lambda: ray.get(echo.ping.remote(BODY)), _ASKS))

        def batch() -> None:
            ray.get([echo.ping.remote(BODY) for _ in range(OUTSTANDING)])

        def asks() -> Figures:
            batch()
            began = time.perf_counter()
            for _ in range(_BATCHES):
                batch()
            return {"asks_per_s": _BATCHES * OUTSTANDING / (time.perf_counter() - began)}

        def tells() -> Figures:
            before = ray.get(echo.noted.remote())
            began = time.perf_counter()
            for _ in range(_TELLS):
                echo.note.remote(BODY)
            assert ray.get(echo.noted.remote()) == before + _TELLS
            return {"tells_per_s": _TELLS / (time.perf_counter() - began)}

        yield {"start": lambda: {"program_start_ms": start_ms}, "ask": ask, "asks": asks, "tells": tells}
    finally:
        ray.shutdown()


if __name__ == "__main__":
    serve(local)
