"""Thespian across processes, on its TCP base: every actor is a process."""

from __future__ import annotations

import importlib
import socket
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from ..protocol import BODY, OUTSTANDING, Figures, Measure, latency, serve, times_ns

actors: Any = importlib.import_module("thespian.actors")
_ASKS = 300
_BATCHES = 3
_TELLS = 500  # above 950 that wait its transport blocks, above 1,050 it drops


class Echo(actors.Actor):  # type: ignore[misc]
    def receiveMessage(self, message: Any, sender: Any) -> None:
        if message[0] == "ping":
            self.send(sender, message)
        elif message[0] == "note":
            self.count = getattr(self, "count", 0) + 1
        elif message[0] == "noted":
            self.send(sender, getattr(self, "count", 0))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@asynccontextmanager
async def tcp() -> AsyncGenerator[dict[str, Measure]]:
    began = time.perf_counter()
    system = actors.ActorSystem("multiprocTCPBase", capabilities={"Admin Port": free_port()})
    try:
        echo = system.createActor(Echo)
        assert system.ask(echo, ("ping", BODY), 20) is not None, "its actor did not answer within 20 s"
        start_ms = (time.perf_counter() - began) * 1000

        def ask() -> Figures:
            return latency(times_ns(lambda: system.ask(echo, ("ping", BODY), 5), _ASKS))

        def asks() -> Figures:
            began = time.perf_counter()
            for _ in range(_BATCHES):
                for _ in range(OUTSTANDING):
                    system.tell(echo, ("ping", BODY))
                for _ in range(OUTSTANDING):
                    assert system.listen(10) is not None, "an answer is missing after 10 s"
            return {"asks_per_s": _BATCHES * OUTSTANDING / (time.perf_counter() - began)}

        def tells() -> Figures:
            before = system.ask(echo, ("noted",), 10)
            began = time.perf_counter()
            for _ in range(_TELLS):
                system.tell(echo, ("note", BODY))
            while system.ask(echo, ("noted",), 10) < before + _TELLS:
                pass
            return {"tells_per_s": _TELLS / (time.perf_counter() - began)}

        yield {"start": lambda: {"program_start_ms": start_ms}, "ask": ask, "asks": asks, "tells": tells}
    finally:
        system.shutdown()


if __name__ == "__main__":
    serve(tcp)
